"""The model in a tokenizer.json: its tokens, and the object that encodes with them.

Older folders have it in two files, vocab.json and merges.txt, and its rules in a class of
transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgellm.errors import EdgeLLMError, TokenizerError
from edgellm.files.bounded import read_bounded
from edgellm.files.strict_json import quoted
from edgellm.tokenizer.added_tokens import MAX_ID, Settings
from edgellm.tokenizer.detokenizer import BYTE_OF

MAX_SCORE = 1e30  # of a piece; sums of these stay finite
BPE_SWITCHES = ("fuse_unk", "byte_fallback", "ignore_merges")
MAX_MERGES_BYTES = 64 << 20

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2's tokenizer cuts a text (transformers' Qwen2Tokenizer)."""


@contextmanager
def library_errors(prefix: str) -> Iterator[None]:
    """Turn whatever the Rust library raises inside, its panics included, into a TokenizerError.

    Args:
        prefix: the beginning of its message.
    """
    try:
        yield
    except EdgeLLMError:
        raise
    except BaseException as error:
        # a panic is no Exception, and its class has no public name
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise TokenizerError(f"{prefix}: {reason}") from error


def build_model(model: Mapping[str, Any]) -> tuple[dict[str, int], Any]:
    """Return the ids of the tokens, and the library's model of them."""
    kind = model.get("type")  # old files do not say it
    if kind == "BPE" or (not kind and "merges" in model):
        return _build_bpe(model)
    if kind == "Unigram" or not kind:
        return _build_unigram(model)
    raise TokenizerError(
        f"tokenizer.json holds a model of type {quoted(kind)}; edgellm knows BPE and Unigram"
    )


def _build_bpe(model: Mapping[str, Any]) -> tuple[dict[str, int], Any]:
    from tokenizers import models

    vocabulary, merges = model.get("vocab"), model.get("merges")
    # the library takes a text in their place for the name of a file, and no tokens for a model
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise TokenizerError("tokenizer.json has no vocabulary")
    if not isinstance(merges, list):
        raise TokenizerError("tokenizer.json has no list of merges")
    # with these the library would look for other tokens than are decoded here
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(affix):
            raise TokenizerError(
                f"tokenizer.json marks words by {affix}, which edgellm does not know"
            )
    options = {name: model.get(name, False) for name in BPE_SWITCHES}
    unknown = model.get("unk_token")
    if unknown is not None:
        if unknown not in vocabulary:  # the library minds only when a text needs it
            raise TokenizerError(
                f"the unknown token {quoted(unknown)} of tokenizer.json is not in its vocabulary"
            )
        options["unk_token"] = unknown
    pairs = list(map(tuple, _pairs(merges)))
    built = models.BPE(vocab=vocabulary, merges=pairs, **options)

    # types and merges are right, or the library had refused them; it takes any ids
    ids = set(vocabulary.values())
    if max(ids) >= MAX_ID:
        raise TokenizerError(f"tokenizer.json has the id {max(ids)}; ids go from 0 to {MAX_ID - 1}")
    if len(ids) < len(vocabulary):
        raise TokenizerError("tokenizer.json gives one id to two tokens")
    return dict(vocabulary), built


def _build_unigram(model: Mapping[str, Any]) -> tuple[dict[str, int], Any]:
    from tokenizers import models

    listed = model.get("vocab")
    if not isinstance(listed, list):
        raise TokenizerError("tokenizer.json has no vocabulary")
    pieces = [tuple(entry) for entry in listed]
    built = models.Unigram(pieces, model.get("unk_id"), model.get("byte_fallback", False))

    # types are right, or the library had refused them; it takes any texts and scores
    for piece, score in pieces:
        if not piece or abs(score) >= MAX_SCORE:
            raise TokenizerError(
                f"tokenizer.json has an impossible piece: {quoted([piece, score])}"
            )
    vocabulary = {piece: at for at, (piece, _) in enumerate(pieces)}
    if len(vocabulary) < len(pieces):
        raise TokenizerError("tokenizer.json has a piece twice")
    return vocabulary, built


def document_of_merges(
    vocabulary: Mapping[str, Any], merges: Path, settings: Settings
) -> dict[str, Any]:
    """Return the tokenizer.json that vocab.json and merges.txt stand for.

    Args:
        vocabulary: the contents of vocab.json.
        merges: the path of merges.txt.
        settings: the contents of the files beside them; tokenizer_class says the rules.

    Raises:
        TokenizerError: merges.txt is damaged, or the class is none whose rules are known.
    """
    kind = settings.config.get("tokenizer_class")
    byte_level: dict[str, Any] = {
        "type": "ByteLevel",
        "add_prefix_space": settings.flag("add_prefix_space", False),
        "trim_offsets": True,
        "use_regex": True,
    }
    splitting, normalizer = byte_level, None
    if kind in ("Qwen2Tokenizer", "Qwen2TokenizerFast"):
        cut = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated"}
        steps = [cut | {"invert": False}, byte_level | {"use_regex": False}]
        splitting = {"type": "Sequence", "pretokenizers": steps}
        normalizer = {"type": "NFC"}
    elif kind not in ("GPT2Tokenizer", "GPT2TokenizerFast"):
        raise TokenizerError(
            f"vocab.json and merges.txt are read as tokenizer_class says, which is {quoted(kind)}; "
            "known are Qwen2Tokenizer and GPT2Tokenizer",
            hint="save the tokenizer with transformers, which writes a tokenizer.json",
        )
    try:
        lines = read_bounded(merges, MAX_MERGES_BYTES).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise TokenizerError("merges.txt is not UTF-8") from error
    except EdgeLLMError as error:
        raise TokenizerError(error.message) from error
    pairs = [line.rstrip("\r") for line in lines if not line.startswith("#version")]
    return {
        "added_tokens": None,
        "normalizer": normalizer,
        "pre_tokenizer": splitting,
        "post_processor": _frame(vocabulary, settings),
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [pair for pair in pairs if pair]},
    }


def _frame(vocabulary: Mapping[str, Any], settings: Settings) -> dict[str, Any] | None:
    """Return the post-processor that the switches of tokenizer_config.json ask for."""
    ids = dict(vocabulary) | {token.content: key for key, token in settings.added.items()}
    single: list[dict[str, Any]] = [{"Sequence": {"id": "A"}}]
    tokens = {}
    for role, place in (("bos_token", 0), ("eos_token", 2)):
        name = settings.named.get(role)
        if name in ids and settings.flag(f"add_{role}", False):
            single.insert(place, {"SpecialToken": {"id": name}})
            tokens[name] = {"id": name, "ids": [ids[name]], "tokens": [name]}
    if not tokens:
        return None
    return {"type": "TemplateProcessing", "single": single, "special_tokens": tokens}


def merged_tokens(model: Mapping[str, Any]) -> set[str]:
    """Return the tokens that a byte-level model can make of a text."""
    return {*map("".join, _pairs(model["merges"])), *BYTE_OF}


def _pairs(merges: list[Any]) -> list[Any]:
    """Return each merge as two tokens; old files have a space between them."""
    if str not in {*map(type, merges)}:
        return merges
    pairs = []
    for merge in merges:
        pair = merge
        if isinstance(merge, str):
            pair = merge.split(" ")
        pairs.append(pair)
    return pairs
