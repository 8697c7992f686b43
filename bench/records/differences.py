"""What tells records apart: the settings and machines in which they differ, and nothing that is the same in all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
"""A record as ``Record.as_dict`` gives it."""

SETTINGS: Mapping[str, Callable[[Any], str]] = {
    "model": str,
    "backend": str,
    "bits": lambda value: f"{value} bits",
    "dtype": str,
    "threads": lambda value: counted(value, "thread"),
    "batch": lambda value: counted(value, "sequence"),
    "memory_bytes": lambda value: f"in {value / 1e9:.3g} GB",
    "test": str,
    "device": str,
}
"""What a record is a measurement of, and how each setting is said."""


def differing(rows: Sequence[Row], names: Sequence[str] = tuple(SETTINGS)) -> list[str]:
    """The settings that are not the same in all rows."""
    return [name for name in names if len({str(row.get(name)) for row in rows}) > 1]


def label(row: Row, names: Sequence[str]) -> str:
    """What some settings say of a row; those that it does not have are left out."""
    return ", ".join(SETTINGS[name](row[name]) for name in names if row.get(name) is not None)


def counted(number: int, noun: str) -> str:
    """So many of something: ``1 thread``, ``2 threads``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def short_model(name: str) -> str:
    """A model's name without the folders that it lies in."""
    return name.rstrip("/").rpartition("/")[2] or name


def flat_environment(row: Row) -> dict[str, str]:
    """A row's environment as names with points, and texts; the time left out, which always differs."""
    return {
        name: str(value)
        for name, value in _flat(row["environment"], "")
        if name != "time" and value is not None
    }


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else [(prefix + name, value)]
        )
    return found
