"""How byte-level tokenizers cut a text before they merge.

llama.cpp has a name for each way, a tokenizer.json has steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.tokenizer.json_model import QWEN2

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""As in Meta's tokenizer.py (github.com/meta-llama/llama3)."""

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGITS = r"\p{N}"

UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
BEFORE_LETTERS = r"[^\r\n\p{L}\p{N}]?"
TEKKEN = (
    rf"{BEFORE_LETTERS}{UPPER}*{LOWER}+"
    rf"|{BEFORE_LETTERS}{UPPER}+{LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    rf"{BEFORE_LETTERS}{UPPER}*{LOWER}+{ENDINGS}"
    rf"|{BEFORE_LETTERS}{UPPER}+{LOWER}*{ENDINGS}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""GPT-4o's, and Phi-4-mini's (o200k_base of github.com/openai/tiktoken)."""

SEED = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}"
    r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
"""DeepSeek V3's, and Hunyuan's dense models': numbers, then Chinese and Japanese, then words."""

WITHOUT_REST = (LLAMA_3, QWEN2, TEKKEN, O200K, SEED)
"""Patterns that match all of any text."""

PATTERNS: Mapping[str, tuple[str, ...]] = {
    "llama-bpe": (LLAMA_3,),
    "smaug-bpe": (LLAMA_3,),
    "qwen2": (QWEN2,),
    "tekken": (TEKKEN,),
    "gpt-2": (GPT2,),
    "smollm": (DIGITS, GPT2),
    "gpt-4o": (O200K,),
    "seed-coder": (SEED,),
    "deepseek-v3": DEEPSEEK_3,
}
"""The patterns that cut one after the other, by llama.cpp's name."""

OTHER_NAMES: Mapping[str, str] = {
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "falcon3": "llama-bpe",
    "dbrx": "smaug-bpe",
    "chatglm-bpe": "smaug-bpe",
    "pixtral": "llama-bpe",
    "stablelm2": "qwen2",
    "deepseek-r1-qwen": "qwen2",
    "megrez": "qwen2",
    "phi-2": "gpt-2",
    "mpt": "gpt-2",
    "olmo": "gpt-2",
    "exaone4": "gpt-2",
    "llama4": "gpt-4o",
    "hunyuan-dense": "deepseek-v3",
    "starcoder": "smollm",
    "refact": "smollm",
    "command-r": "smollm",
}
"""llama.cpp's other names for the same patterns."""

WHOLE_WORDS = ("llama-bpe", "tekken")
"""A word that is a token is taken whole, without merging (``ignore_merges``)."""

STARTS_WITH_BOS = ("llama-bpe", "tekken")
"""Where a file does not say, the beginning token is put before a text."""

NFC_NORMALIZED = ("qwen2",)
"""Trained on texts in Unicode's composed form; llama.cpp leaves a text as it is."""


def known_pre_tokenizer(name: str) -> str | None:
    """Return the key of ``PATTERNS`` that llama.cpp's name stands for; None: it is unknown."""
    name = OTHER_NAMES.get(name, name)
    if name not in PATTERNS:
        return None
    return name


def pre_tokenizer_json(name: str) -> dict[str, Any]:
    """Return the ``pre_tokenizer`` of a tokenizer.json."""
    steps: list[dict[str, Any]] = []
    use_regex = False
    for pattern in PATTERNS[name]:
        if pattern == GPT2:
            use_regex = True  # ByteLevel has this pattern built in
        elif pattern == DIGITS:
            steps.append({"type": "Digits", "individual_digits": True})
        else:
            steps.append(_split_at(pattern))
    return _before_bytes(steps, use_regex=use_regex)


def split_by(pattern: str) -> dict[str, Any]:
    """Return the ``pre_tokenizer`` that cuts by one pattern."""
    return _before_bytes([_split_at(pattern)], use_regex=False)


def pre_tokenizer_of(steps: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the key of ``PATTERNS`` that a tokenizer.json's steps are; None: none of them."""
    patterns: list[str] = []
    for step in steps:
        match step:
            case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated"} if (
                not step.get("invert")
            ):
                patterns.append(pattern)
            # what matches is kept and the rest is dropped: of these, no rest is left
            case {
                "type": "Split",
                "pattern": {"Regex": str(pattern)},
                "behavior": "Removed",
                "invert": True,
            } if pattern in WITHOUT_REST:
                patterns.append(pattern)
            case {"type": "Digits", "individual_digits": True}:
                patterns.append(DIGITS)
            case {"type": "ByteLevel"} if not step.get("add_prefix_space"):
                if step.get("use_regex", True):
                    patterns.append(GPT2)
            case _:
                return None
    for name, known in PATTERNS.items():
        if tuple(patterns) == known:
            return name
    return None


def _split_at(pattern: str) -> dict[str, Any]:
    regex = {"Regex": pattern}
    return {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}


def _before_bytes(steps: Sequence[dict[str, Any]], *, use_regex: bool) -> dict[str, Any]:
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }
    if not steps:
        return byte_level
    return {"type": "Sequence", "pretokenizers": [*steps, byte_level]}
