"""Find what tells records apart: settings and facts that are not the same in all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgellm.bench.records.record import Record

SETTINGS: Mapping[str, Callable[[Any], str]] = {
    "task": str,
    "model": str,
    "backend": str,
    "bits": lambda value: f"{value} bits",
    "dtype": str,
    "threads": lambda value: counted(value, "thread"),
    "tensor_parallel": lambda value: f"tensor parallel {value}",
    "cluster": str,
    "batch": lambda value: counted(value, "sequence"),
    "memory_bytes": lambda value: f"in {value / 1e9:.3g} GB",
    "test": str,
    "shots": lambda value: counted(value, "shot"),
    "shot_seed": lambda value: f"examples {value}",
    "decoding": str,
    "kv_bits": lambda value: f"KV cache of {value} bits",
    "device": str,
}
"""The fields that say what was measured, and how each is put in words."""


def differing_settings(
    records: Sequence[Record], names: Sequence[str] = tuple(SETTINGS)
) -> list[str]:
    """Return the settings that are not the same in all records."""
    return [name for name in names if len({str(record.get(name)) for record in records}) > 1]


def label(record: Record, names: Sequence[str]) -> str:
    """Put some of a record's settings in words; those that it does not have are left out."""
    values = {name: record.get(name) for name in names}
    return ", ".join(SETTINGS[name](value) for name, value in values.items() if value is not None)


def counted(number: int, noun: str) -> str:
    """Return a count in words: ``1 thread``, ``2 threads``."""
    if number == 1:
        return f"{number} {noun}"
    return f"{number} {noun}s"


def short_model(name: str) -> str:
    """Return a model's name without the folders that it lies in."""
    return name.rstrip("/").rpartition("/")[2] or name


def flat_environment(record: Record) -> dict[str, str]:
    """Return a record's environment flat, without the time, which always differs."""
    return {
        name: str(value)
        for name, value in flatten(record.environment).items()
        if name != "time" and value is not None
    }


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings as one, with names such as ``packages.mlx``."""
    return dict(_leaves(values, ""))


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
