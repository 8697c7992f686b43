"""Where llama.cpp will cut a text otherwise than a folder's own tokenizer, in words.

llama.cpp knows a tokenizer's tokens and a few switches, and none of the steps around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from edgellm.converters.gguf.vocabulary import KEY
from edgellm.converters.tokenizers.pretokenizers import WHOLE_WORDS
from edgellm.converters.tokenizers.spm_file import SPACE
from edgellm.files.strict_json import quoted
from edgellm.tokenizer import Tokenizer
from edgellm.tokenizer.added_tokens import AddedToken, Settings
from edgellm.tokenizer.detokenizer import steps_of
from edgellm.tokenizer.spm_proto import PieceModel

SPACE_AFTER_SPECIAL = (
    "after a special token within a text llama.cpp puts a space, "
    "and this model's tokenizer does not"
)
SECOND_SPACE = (
    "before a text that begins with a space llama.cpp puts another one, "
    "and this model's tokenizer does not"
)

DEFAULT_ENDS = {"llama": 2, "gpt2": 11}
"""The ids that llama.cpp takes for the end of a text where a file names none."""


def sentencepiece_notes(model: PieceModel, settings: Settings, *, adds_space: bool) -> list[str]:
    """Return what llama.cpp does otherwise than a SentencePiece model."""
    notes = []
    if adds_space and not settings.flag("legacy", False):
        notes.append(SPACE_AFTER_SPECIAL)
    if model.merges_spaces:
        notes.append(
            "this tokenizer takes several spaces for one and drops those around a text, "
            "and llama.cpp does not"
        )
    if any(model.charsmaps):
        notes.append(_normalizes(["a table of characters"]))
    if model.suffix:
        notes.append("this tokenizer puts a word's space behind it, and llama.cpp before it")
    return notes + _spaces_beside(settings.added.values())


def piece_json_notes(
    document: Mapping[str, Any], merges: Sequence[Sequence[str]], *, adds_space: bool
) -> list[str]:
    """Return what llama.cpp does otherwise than a tokenizer.json that merges plain letters."""
    notes = []
    changes = []
    for step in steps_of(document.get("normalizer"), "normalizers"):
        match step:
            case {"type": "Prepend", "prepend": "\u2581"}:
                pass
            case {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}:
                pass
            case _:
                changes.append(str(step.get("type")))
    if changes:
        notes.append(_normalizes(changes))
    steps = steps_of(document.get("pre_tokenizer"), "pretokenizers")
    metaspaces = [step for step in steps if step.get("type") == "Metaspace"]
    cuts = [str(step.get("type")) for step in steps if step not in metaspaces]
    if adds_space and metaspaces:
        notes.append(SECOND_SPACE)
    if adds_space and any(step.get("prepend_scheme") == "first" for step in metaspaces):
        notes.append(SPACE_AFTER_SPECIAL)
    added = {token["content"] for token in document.get("added_tokens") or []}
    vocabulary = document["model"]["vocab"].keys() - added
    if any(step.get("split", True) for step in metaspaces) and any(
        SPACE in token[1:] for token in vocabulary
    ):
        cuts.append("spaces")
    if cuts:
        notes.append(
            f"this tokenizer cuts a text ({', '.join(cuts)}) before it merges, "
            "and llama.cpp does not"
        )
    if not _merges_all(vocabulary, merges):
        notes.append(
            "llama.cpp merges whatever pieces spell a token, and this tokenizer only those pairs "
            "that it lists"
        )
    return notes


def byte_level_notes(document: Mapping[str, Any], pre_tokenizer: str) -> list[str]:
    """Return what llama.cpp does otherwise than a tokenizer.json that merges bytes."""
    notes = []
    normalizers = steps_of(document.get("normalizer"), "normalizers")
    if normalizers:
        notes.append(_normalizes([str(step.get("type")) for step in normalizers]))
    for step in steps_of(document.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "ByteLevel" and step.get("add_prefix_space", True):
            notes.append("this tokenizer puts a space before a text, and llama.cpp does not")
    model = document["model"]
    takes_whole = bool(model.get("ignore_merges"))
    if model["merges"] and takes_whole != (pre_tokenizer in WHOLE_WORDS):
        one, other = "merges it from its letters", "takes it whole"
        if takes_whole:
            one, other = other, one
        notes.append(f"where a word is a token, this tokenizer {one}, and llama.cpp {other}")
    return notes


def added_notes(document: Mapping[str, Any]) -> list[str]:
    """Return what llama.cpp does otherwise with a tokenizer.json's added tokens."""
    tokens = []
    for added in document.get("added_tokens") or []:
        switches = {name: added.get(name) is True for name in ("lstrip", "rstrip", "single_word")}
        tokens.append(AddedToken(added["content"], **switches))
    return _spaces_beside(tokens)


def frame_notes(tokenizer: Tokenizer, metadata: Mapping[str, Any]) -> list[str]:
    """Return what llama.cpp does otherwise at the beginning and at the end of a text."""
    notes = []
    end = metadata.get(f"{KEY}eos_token_id")
    around = []
    if metadata[f"{KEY}add_bos_token"]:
        around.append(metadata[f"{KEY}bos_token_id"])
    if metadata[f"{KEY}add_eos_token"]:
        around.append(end)
    own = tokenizer.encode("")
    if own != around:
        listed = " ".join(map(tokenizer.id_to_token, own))
        notes.append(f"this tokenizer puts {listed} around a text, and llama.cpp cannot")
    default = DEFAULT_ENDS[metadata[f"{KEY}model"]]
    if end is None and default < len(metadata[f"{KEY}tokens"]):
        notes.append(
            "the model names no end of a text, for which llama.cpp takes token "
            f"{default}, {quoted(metadata[f'{KEY}tokens'][default])}"
        )
    return notes


def _normalizes(kinds: Sequence[str]) -> str:
    return (
        f"this tokenizer changes a text before it cuts it ({', '.join(kinds)}), "
        "and llama.cpp does not"
    )


def _spaces_beside(tokens: Iterable[AddedToken]) -> list[str]:
    named = [token.content for token in tokens if token.lstrip or token.rstrip or token.single_word]
    if not named:
        return []
    listed = ", ".join(map(quoted, named[:3]))
    if len(named) > 3:
        listed += f" and {len(named) - 3} more"
    return [f"for this tokenizer the spaces and words beside {listed} matter, for llama.cpp not"]


def _merges_all(vocabulary: Set[str], merges: Sequence[Sequence[str]]) -> bool:
    """Return whether every pair of tokens that spells a token is merged, each token's in a row."""
    pairs = {(first, second) for first, second in merges}
    made = [first + second for first, second in merges]
    runs = sum(token != before for token, before in zip(made, [None, *made], strict=False))
    if runs != len(set(made)):
        return False
    return all(
        (token[:place], token[place:]) in pairs
        for token in vocabulary
        for place in range(1, len(token))
        if token[:place] in vocabulary and token[place:] in vocabulary
    )
