"""The model in a tokenizer.json: its tokens, and the object that encodes with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgellm.errors import EdgeLLMError, TokenizerError
from edgellm.files.strict_json import quoted
from edgellm.tokenizer.added_tokens import MAX_ID
from edgellm.tokenizer.detokenizer import BYTE_OF

MAX_SCORE = 1e30  # of a piece; sums of these stay finite
BPE_SWITCHES = ("fuse_unk", "byte_fallback", "ignore_merges")


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
    pairs = [tuple(_pair(merge)) for merge in merges]
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


def merged_tokens(model: Mapping[str, Any]) -> set[str]:
    """Return the tokens that a byte-level model can make of a text."""
    joined = {"".join(_pair(merge)) for merge in model["merges"]}
    return joined | BYTE_OF.keys()


def _pair(merge: Any) -> Any:
    """Return a merge as two tokens; old files have a space between them."""
    if isinstance(merge, str):
        return merge.split(" ")
    return merge
