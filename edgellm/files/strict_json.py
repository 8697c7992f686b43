"""JSON: from strangers, read within bounds of time and memory; our own, written atomically."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from edgellm.errors import FormatError
from edgellm.files.atomic import FileRecord, write_file
from edgellm.files.bounded import read_bounded

MAX_BYTES = 4 << 20
"""Bytes; the largest document taken. The index of a 405B model has 0.4 MB."""

MAX_ITEMS = 200_000
"""Values of one document; parsed, each takes up to 200 bytes, and all of them up to 64 MiB."""

MAX_DEPTH = 32
"""Levels of nesting; real configs have 4."""

HALF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
"""Escapes of surrogates, without which UTF-8 holds none."""

MAX_QUOTED = 100
"""Characters of a stranger's name in a message."""


def read_json(
    path: Path, *, max_bytes: int = MAX_BYTES, max_items: int = MAX_ITEMS, finite: bool = True
) -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        path: the file.
        max_bytes: maximum number of its bytes.
        max_items: values in it.
        finite: whether numbers have to be finite; where they need not, ``Infinity`` and ``NaN`` are
            read as Python writes them, which configs of state-space models hold.

    Raises:
        FormatError: it is no JSON object, too large, too deep, names a key twice, or holds a number
            that is not finite.
        ReadError: the file cannot be read.
    """
    data = read_bounded(path, max_bytes)
    return parse_json(data, str(path), max_bytes=max_bytes, max_items=max_items, finite=finite)


def parse_json(
    data: bytes,
    name: str,
    *,
    max_bytes: int = MAX_BYTES,
    max_items: int = MAX_ITEMS,
    finite: bool = True,
) -> dict[str, Any]:
    """Return the JSON object in ``data``; ``name`` says in errors where it came from.

    Raises:
        FormatError: as ``read_json``.
    """
    if len(data) > max_bytes:
        raise FormatError(f"{name} is larger than {max_bytes} bytes")
    # Every value but the first of each list or object has a comma before it: an upper bound that
    # costs no parsing.
    if data.count(b",") + data.count(b"[") + data.count(b"{") > max_items:
        raise FormatError(f"{name} holds more than {max_items} values")
    try:
        value = loads_strict(data.decode("utf-8"), finite=finite)
    except RecursionError as error:
        raise FormatError(f"{name} is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{name} is not valid JSON: not UTF-8") from error
    except ValueError as error:
        raise FormatError(f"{name} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{name} is not a JSON object")
    _check_values(value, name, strings=HALF_A_PAIR.search(data) is not None)
    return value


def loads_strict(text: str, *, finite: bool = True) -> Any:
    """Return what a JSON text holds; ``finite`` is as in ``read_json``.

    Raises:
        ValueError: it is no JSON, names a key twice, or holds a number that is not finite or has
            thousands of digits.
        RecursionError: it is nested too deeply.
    """
    if not finite:
        return json.loads(text, object_pairs_hook=_object_without_doubles)
    return json.loads(
        text,
        object_pairs_hook=_object_without_doubles,
        parse_constant=_refuse_constant,
        parse_float=_finite_float,
    )


def write_json(
    path: Path, value: dict[str, Any], *, private: bool = False, finite: bool = True
) -> FileRecord:
    """Write ``value`` as ``write_file`` does; ``finite`` is as in ``read_json``.

    Raises ConversionError.
    """
    text = json.dumps(value, indent=2, allow_nan=not finite) + "\n"
    return write_file(path, [text.encode("utf-8")], private=private)


def quoted(name: object) -> str:
    """Return a stranger's name made safe to print: quoted, escaped, not longer than a line."""
    try:
        text = ascii(name)
    except ValueError:  # a whole number of more digits than Python writes
        return "a number of thousands of digits"
    # an array's own form has lines
    text = " ".join(line.strip() for line in text.splitlines())
    if len(text) <= MAX_QUOTED:
        return text
    return f"{text[:90]}...{text[-1]}"


def _object_without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {quoted(counts.most_common(1)[0][0])} occurs twice")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{quoted(text)} is too large")
    return value


def _check_values(value: dict[str, Any], name: str, *, strings: bool) -> None:
    """Refuse nesting that recursive readers could not bear, and ``strings`` that are no Unicode."""
    objects: list[dict[str, Any]] = [value]
    lists: list[list[Any]] = []
    for _ in range(MAX_DEPTH):
        parts = [*chain.from_iterable(map(dict.values, objects)), *chain.from_iterable(lists)]
        if strings:
            keys = chain.from_iterable(objects)
            _check_texts([*keys, *(part for part in parts if isinstance(part, str))], name)
        objects = [part for part in parts if type(part) is dict]
        lists = [part for part in parts if type(part) is list]
        if not (objects or lists):
            return
    raise FormatError(f"{name} is nested more than {MAX_DEPTH} levels deep")


def _check_texts(texts: list[str], name: str) -> None:
    """Refuse half a surrogate pair, which JSON can write and no encoder takes."""
    for text in texts:
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise FormatError(f"{name} holds a string that is not Unicode text: {quoted(text)}")
