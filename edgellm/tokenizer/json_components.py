"""The parts of a tokenizer.json around its vocabulary, checked before the library has them.

The library parses them itself and refuses what is damaged. It bounds neither how much longer they
make a text, nor which ids they put around it: those are the checks here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from edgellm.errors import TokenizerError
from edgellm.files.strict_json import quoted
from edgellm.tokenizer.detokenizer import kind_of, steps_of
from edgellm.tokenizer.spm_charsmap import check_charsmap

MAX_STEPS = 64
MAX_PATTERN = 16_384  # characters
MAX_INSERT = 64  # characters that a step may put in
MAX_GROWTH = 64  # how many times longer all steps together may make a text

# Kinds whose growth is known
NORMALIZERS = [
    "Prepend", "Replace", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt",
    "ByteLevel", "Precompiled",
]  # fmt: skip
PRE_TOKENIZERS = [
    "Split", "ByteLevel", "Metaspace", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit",
]  # fmt: skip


def check_components(normalizer: Any, pre_tokenizer: Any) -> None:
    """Raise TokenizerError unless both are of known kinds that cannot make a text much longer."""
    growth = _check_steps(normalizer, "normalizers", NORMALIZERS)
    growth *= _check_steps(pre_tokenizer, "pretokenizers", PRE_TOKENIZERS)
    if growth > MAX_GROWTH:
        raise TokenizerError(
            "tokenizer.json would make a text many times longer before it is encoded"
        )


def read_frame(post_processor: Any, ids: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """Return the ids that a post-processor puts before and after a text.

    Args:
        post_processor: a mapping with a "type", or ``None``.
        ids: the whole vocabulary.

    Raises:
        TokenizerError: it is damaged, or of a kind that no LLaMA-like model uses.
    """
    before: list[int] = []
    after: list[int] = []
    for step in steps_of(post_processor, "processors"):
        match step:
            case {"type": "ByteLevel"}:  # concerns offsets only
                continue
            case {
                "type": "TemplateProcessing",
                "single": list(single),
                "special_tokens": dict(tokens),
            }:
                texts = [
                    at
                    for at, item in enumerate(single)
                    if isinstance(item, dict) and "Sequence" in item
                ]
                if len(texts) != 1:
                    raise TokenizerError("the template of tokenizer.json must hold the text once")
                before = [*_special_ids(single[: texts[0]], tokens, ids), *before]
                after += _special_ids(single[texts[0] + 1 :], tokens, ids)
            case {
                "type": "RobertaProcessing" | "BertProcessing",
                "cls": [str(begin), int(begin_id)],
                "sep": [str(end), int(end_id)],
            }:
                around = {begin: begin_id, end: end_id}
                if any(token_id not in ids.values() for token_id in around.values()):
                    raise TokenizerError(
                        "tokenizer.json puts tokens round a text that it does not have: "
                        f"{quoted(around)}"
                    )
                before = [begin_id, *before]
                after.append(end_id)
            case _:
                raise TokenizerError(
                    "tokenizer.json ends in a processor that edgellm does not know: "
                    f"{kind_of(step)}"
                )
    return before, after


def _check_steps(component: Any, name: str, known: list[str]) -> float:
    """Return how many times longer all steps of a component together may make a text."""
    steps = steps_of(component, name)
    if len(steps) > MAX_STEPS:
        raise TokenizerError(f"tokenizer.json has {len(steps)} {name}; the maximum is {MAX_STEPS}")
    growth = 1.0
    for step in steps:
        if not isinstance(step, Mapping) or step.get("type") not in known:
            raise TokenizerError(
                f"tokenizer.json has {name} that edgellm does not know: {kind_of(step)}"
            )
        growth *= _growth(step)
    return growth


def _growth(step: Mapping[str, Any]) -> float:
    """Return how many times longer a step may make a text."""
    match step:
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if old:
            _limit(new, MAX_INSERT)
            return max(1.0, len(new) / len(old))
        case {"type": "Replace", "pattern": {"Regex": str(pattern)}, "content": str(new)}:
            _limit(pattern, MAX_PATTERN)
            return 1.0 + len(new)  # a pattern may match between any two characters
        case {"type": "Prepend", "prepend": str(new)}:
            _limit(new, MAX_INSERT)
        case {"type": "Split", "pattern": {"Regex": str(pattern)} | {"String": str(pattern)}}:
            _limit(pattern, MAX_PATTERN)
        case {"type": "Replace" | "Prepend" | "Split"}:
            raise TokenizerError(f"tokenizer.json has a damaged {kind_of(step)}")
        case {"type": "Precompiled"}:
            _check_table(step.get("precompiled_charsmap"))
        case {"type": "ByteLevel"}:
            return 2.0  # each byte becomes a character of up to two bytes
    return 1.0


def _check_table(encoded: Any) -> None:
    try:
        table = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError) as error:
        raise TokenizerError("the normalization table in tokenizer.json is damaged") from error
    check_charsmap(table or b"\0")  # an empty one is a choice in SentencePiece, but not here


def _limit(text: str, longest: int) -> None:
    if len(text) > longest:
        raise TokenizerError(
            f"tokenizer.json has a pattern or an insertion that is too long: {quoted(text)}"
        )


def _special_ids(items: list[Any], tokens: Mapping[str, Any], ids: Mapping[str, int]) -> list[int]:
    """Return the ids of the special tokens that ``items`` of a template name."""
    known = set(ids.values())
    special: list[int] = []
    for item in items:
        match item:
            case {"SpecialToken": {"id": str(name)}} if isinstance(tokens.get(name), dict):
                listed = tokens[name].get("ids")
                if not isinstance(listed, list) or not all(
                    type(token_id) is int and token_id in known for token_id in listed
                ):
                    raise TokenizerError(
                        f"the template of tokenizer.json has impossible ids for {quoted(name)}"
                    )
                special += listed
            case _:
                raise TokenizerError("the template of tokenizer.json is damaged")
    return special
