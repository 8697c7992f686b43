"""Mistral's tekken.json: ranks of bytes behind special tokens."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.checkpoint.folder import inside
from edgellm.converters.tokenizers.companions import companion_parts
from edgellm.converters.tokenizers.mistral_templates import (
    MISTRAL_BEGIN,
    TEMPLATES,
    mistral_settings,
    no_template_note,
)
from edgellm.converters.tokenizers.pretokenizers import split_by
from edgellm.converters.tokenizers.ranks import (
    MAX_RANKS,
    MAX_TOKEN_BYTES,
    complete_ranks,
    ranked_document,
)
from edgellm.errors import FormatError
from edgellm.files.strict_json import parse_json, quoted, read_json
from edgellm.settings import is_int
from edgellm.tokenizer.tokenizer import has_vocabulary

TEKKEN = "tekken.json"
CONFIG = "tokenizer_config.json"
MAX_BYTES = 64 << 20
MAX_ITEMS = 4 * MAX_RANKS
MAX_SPECIAL = 1 << 14
MAX_PATTERN = 4096

OLDER_SPECIAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
)
"""The first special tokens of files that list none: those up to version 7 (mistral-common)."""

LAST_WITHOUT_LIST = 7


@dataclass(frozen=True, slots=True)
class Tekken:
    """A tekken.json that has been read.

    Attributes:
        version: the version of the form of a chat, such as ``v3``.
        pattern: the pattern that cuts a text before it is merged.
        special: text, and whether it is control and not text, of the first tokens.
        ranks: the tokens behind them.
    """

    version: str
    pattern: str
    special: Sequence[tuple[str, bool]]
    ranks: Sequence[bytes]


def tekken_companions(
    path: Path, beside: Path | bytes | None = None
) -> tuple[dict[str, Path | bytes], list[str]]:
    """Return a tokenizer's files in a model folder, made of a tekken.json, and what to tell.

    Args:
        path: the tekken.json.
        beside: a tokenizer_config.json, whose chat template goes before the one of the version.

    Raises:
        FormatError: it is damaged.
        ReadError: it cannot be read.
    """
    tekken = read_tekken(path)
    texts = [text for text, _ in tekken.special]
    if MISTRAL_BEGIN not in texts:
        raise FormatError(f"{path} has no special token {MISTRAL_BEGIN}", hint="download it again")
    document = ranked_document(
        tekken.ranks,
        added=[(place, text, control) for place, (text, control) in enumerate(tekken.special)],
        splitting=split_by(tekken.pattern),
        begin=texts.index(MISTRAL_BEGIN),
    )
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | mistral_settings(
        tekken.version, texts
    )
    if beside is not None:
        own = parse_json(b"".join(companion_parts(beside)), CONFIG)
        settings |= {key: value for key, value in own.items() if key == "chat_template"}
    notes = []
    if tekken.version not in TEMPLATES:
        notes.append(no_template_note(tekken.version))
    files: dict[str, Path | bytes] = {
        "tokenizer.json": json.dumps(document, ensure_ascii=False).encode(),
        CONFIG: (json.dumps(settings, indent=2) + "\n").encode(),
    }
    return files, notes


def with_tekken(
    folder: Path, companions: Mapping[str, Path | bytes]
) -> tuple[Mapping[str, Path | bytes], Sequence[str]]:
    """Return a folder's companions, and what to tell of them.

    Where no other tokenizer is among them, one is made of the folder's tekken.json.

    Raises:
        FormatError, ReadError: as ``tekken_companions``.
    """
    if has_vocabulary(companions) or not (folder / TEKKEN).exists():
        return companions, ()
    made, notes = tekken_companions(inside(folder, TEKKEN), companions.get(CONFIG))
    return {**companions, **made}, notes


def read_tekken(path: Path) -> Tekken:
    """Read a tekken.json.

    Raises:
        FormatError: it is damaged, or its numbers do not fit each other.
        ReadError: it cannot be read.
    """
    raw = read_json(path, max_bytes=MAX_BYTES, max_items=MAX_ITEMS)
    config = raw.get("config")
    if not isinstance(config, Mapping):
        raise FormatError(f"{path} has no config", hint="download it again")
    version, pattern = config.get("version"), config.get("pattern")
    if not isinstance(version, str) or not isinstance(pattern, str) or len(pattern) > MAX_PATTERN:
        raise FormatError(
            f"{path}: version is {quoted(version)} and pattern {quoted(pattern)}; "
            "both must be texts",
            hint="download it again",
        )
    specials = _count(config, "default_num_special_tokens", MAX_SPECIAL, path)
    size = _count(config, "default_vocab_size", MAX_RANKS + MAX_SPECIAL, path)
    special = _special(raw.get("special_tokens"), version, specials, path)
    return Tekken(version, pattern, special, _ranks(raw.get("vocab"), size - specials, path))


def _ranks(vocabulary: object, count: int, path: Path) -> Sequence[bytes]:
    """Return the first ``count`` tokens; files hold more than a model uses."""
    if not isinstance(vocabulary, list) or not 256 <= count <= min(len(vocabulary), MAX_RANKS):
        raise FormatError(
            f"{path}: default_vocab_size asks for {count} tokens beside the special ones, "
            "which vocab does not hold",
            hint="download it again",
        )
    tokens: list[bytes | None] = [None] * count
    for item in vocabulary:
        rank, token = -1, b""
        if isinstance(item, Mapping):
            rank, token = item.get("rank", -1), _bytes_of(item.get("token_bytes"))
        if not is_int(rank) or rank < 0 or not 0 < len(token) <= MAX_TOKEN_BYTES:
            raise FormatError(f"{path}: vocab holds {quoted(item)}", hint="download it again")
        if rank < count:
            tokens[rank] = token
    found = [token for token in tokens if token is not None]
    if len(found) < count:
        raise FormatError(
            f"{path}: the token of rank {tokens.index(None)} is missing", hint="download it again"
        )
    return complete_ranks(found, path)


def _special(listed: object, version: str, count: int, path: Path) -> list[tuple[str, bool]]:
    """Return the special tokens in the order of their ids; those without a name are numbered."""
    number = version.removeprefix("v")
    if listed is None and (not number.isdecimal() or int(number[:9]) > LAST_WITHOUT_LIST):
        raise FormatError(
            f"{path} is of version {quoted(version)} and lists no special_tokens",
            hint="download it again",
        )
    special = [(text, True) for text in OLDER_SPECIAL]
    if listed is not None:
        special = _listed_special(listed, path)
    if len(special) > count:
        raise FormatError(
            f"{path} lists {len(special)} special tokens and has room for {count}",
            hint="download it again",
        )
    special += [(f"<SPECIAL_{place}>", True) for place in range(len(special), count)]
    if len({text for text, _ in special}) < count:
        raise FormatError(f"{path} names a special token twice", hint="download it again")
    return special


def _listed_special(listed: object, path: Path) -> list[tuple[str, bool]]:
    if not isinstance(listed, list):
        raise FormatError(
            f"{path}: special_tokens is {quoted(listed)}; it must be a list",
            hint="download it again",
        )
    by_rank: dict[int, tuple[str, bool]] = {}
    for item in listed:
        match item:
            case {"rank": int(rank), "token_str": str(text)} if text:
                by_rank[rank] = (text, item.get("is_control") is not False)
            case _:
                raise FormatError(
                    f"{path}: special_tokens holds {quoted(item)}", hint="download it again"
                )
    if by_rank.keys() != set(range(len(listed))):
        raise FormatError(
            f"{path}: the ranks of special_tokens do not go from 0 to {len(listed) - 1}",
            hint="download it again",
        )
    return [by_rank[rank] for rank in range(len(listed))]


def _bytes_of(text: object) -> bytes:
    """Return what base64 says, nothing where it is none."""
    if not isinstance(text, str):
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one
        return b""


def _count(config: Mapping[str, Any], name: str, high: int, path: Path) -> int:
    value = config.get(name)
    if not is_int(value) or not 1 <= value <= high:
        raise FormatError(
            f"{path}: {name} is {quoted(value)}; it must be a whole number from 1 to {high}",
            hint="download it again",
        )
    return value
