"""How a byte-level tokenizer cuts a text before it merges: llama.cpp's names for it, and the steps of a tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.converters.meta.tokenizer import PATTERN

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGITS = r"\p{N}"
LETTERS = r"\p{Lt}\p{Lm}\p{Lo}\p{M}"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}{LETTERS}]*[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]+"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}{LETTERS}]+[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SPLITTINGS: Mapping[str, tuple[str, ...]] = {
    "llama-bpe": (PATTERN,),
    "qwen2": (PATTERN.replace(r"\p{N}{1,3}", r"\p{N}"),),
    "tekken": (TEKKEN,),
    "gpt-2": (GPT2,),
    "smollm": (DIGITS, GPT2),
}
"""The patterns that cut one after the other, by llama.cpp's name."""

OTHER_NAMES: Mapping[str, str] = {
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "falcon3": "llama-bpe",
    "pixtral": "llama-bpe",
    "stablelm2": "qwen2",
    "deepseek-r1-qwen": "qwen2",
    "megrez": "qwen2",
    "phi-2": "gpt-2",
    "mpt": "gpt-2",
    "olmo": "gpt-2",
    "starcoder": "smollm",
    "refact": "smollm",
    "command-r": "smollm",
}

WHOLE_WORDS = ("llama-bpe", "tekken")
"""A word that is a token is taken whole, without merging (``ignore_merges``)."""

BEGUN = ("llama-bpe", "tekken")
"""Where a file does not say, the beginning token is put before a text."""

COMPOSED = ("qwen2",)
"""Trained on texts in Unicode's composed form; llama.cpp leaves a text as it is."""


def splitting_of(name: str) -> str | None:
    """The entry of ``SPLITTINGS`` that llama.cpp's name stands for; None: one that edgellm does not know."""
    name = OTHER_NAMES.get(name, name)
    return name if name in SPLITTINGS else None


def pre_tokenizer_of(splitting: str) -> dict[str, Any]:
    """The ``pre_tokenizer`` of a tokenizer.json."""
    *others, last = SPLITTINGS[splitting]
    cuts = [*others, last] if last != GPT2 else others  # ByteLevel has GPT-2's pattern built in
    steps: list[dict[str, Any]] = [
        {"type": "Digits", "individual_digits": True}
        if cut == DIGITS
        else {"type": "Split", "pattern": {"Regex": cut}, "behavior": "Isolated", "invert": False}
        for cut in cuts
    ]
    steps.append(
        {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": last == GPT2,
        }
    )
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


def splitting_in(steps: Sequence[Mapping[str, Any]]) -> str | None:
    """The inverse: the entry of ``SPLITTINGS`` that the steps of a tokenizer.json are; None: none of them."""
    cuts: list[str] = []
    for step in steps:
        match step:
            case {"type": "Split", "pattern": {"Regex": str(cut)}, "behavior": "Isolated"} if (
                not step.get("invert")
            ):
                cuts.append(cut)
            case {"type": "Digits", "individual_digits": True}:
                cuts.append(DIGITS)
            case {"type": "ByteLevel"} if not step.get("add_prefix_space"):
                cuts += [GPT2] if step.get("use_regex", True) else []
            case _:
                return None
    return next((name for name, known in SPLITTINGS.items() if tuple(cuts) == known), None)
