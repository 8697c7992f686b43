"""A tokenizer.json of byte-level pairs, as Hugging Face's tokenizers write one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def byte_level_document(
    vocabulary: Sequence[str],
    merges: Sequence[Sequence[str]],
    *,
    added: Sequence[tuple[int, str, bool]],
    splitting: Mapping[str, Any] | None,
    frame: Mapping[str, Any] | None,
    normalizer: Mapping[str, Any] | None = None,
    whole_words: bool,
) -> dict[str, Any]:
    """Return the document, as JSON's objects.

    Args:
        vocabulary: tokens in the order of their ids, their bytes as letters.
        merges: pairs of tokens, the earliest first.
        added: id, text, and whether it is special, of tokens that are found before any text is
            split.
        splitting: the pre-tokenizer.
        frame: the post-processor, which puts special tokens round a text.
        normalizer: what happens to a text before.
        whole_words: whether a word that is a token is taken at once, without merging.
    """
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": place, "content": token, "special": special, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for place, token, special in added
        ],
        "normalizer": normalizer,
        "pre_tokenizer": splitting,
        "post_processor": frame,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": whole_words,
            "vocab": {token: place for place, token in enumerate(vocabulary)},
            "merges": [list(merge) for merge in merges],
        },
    }


def post_processor(
    tokens: Sequence[str], begin: int | None, end: int | None
) -> dict[str, Any] | None:
    """Return the post-processor that puts tokens round a text; None: there are none to put.

    Args:
        tokens: in the order of their ids.
        begin: the id of the token before a text.
        end: the id of the token behind it.
    """
    special = [token_id for token_id in (begin, end) if token_id is not None]
    if not special:
        return None
    single: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    if begin is not None:
        single.insert(0, {"SpecialToken": {"id": tokens[begin], "type_id": 0}})
    if end is not None:
        single.append({"SpecialToken": {"id": tokens[end], "type_id": 0}})
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": {
            tokens[token_id]: {
                "id": tokens[token_id],
                "ids": [token_id],
                "tokens": [tokens[token_id]],
            }
            for token_id in special
        },
    }
