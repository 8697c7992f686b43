"""Ways to draw tokens, as options name them: ``greedy``, ``beam:4``, ``top-p:0.9``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgellm.errors import ConfigError
from edgellm.files.strict_json import quoted
from edgellm.settings import Sampling

HINT = "take some of greedy, beam:4, sample, sample:0.7, top-k:40, top-p:0.9, min-p:0.1"


@dataclass(frozen=True, slots=True)
class Decoding:
    """A way to draw tokens.

    Attributes:
        name: as it was given.
        fields: of ``Sampling``.
    """

    name: str
    fields: Mapping[str, Any]

    @property
    def beams(self) -> int:
        """Sequences that are kept at once."""
        return int(self.fields.get("beams", 1))

    @property
    def draws(self) -> bool:
        """Whether two answers may differ."""
        return "temperature" in self.fields


GREEDY = Decoding("greedy", {})


def parse_decodings(text: str) -> tuple[Decoding, ...]:
    """Return the ways in a list with commas. Raises ConfigError."""
    names = dict.fromkeys(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise ConfigError("--decoding names no way to draw tokens", hint=HINT)
    return tuple(map(_parse, names))


def _parse(name: str) -> Decoding:
    kind, _, value = name.partition(":")
    try:
        fields = _fields(kind, value)
    except ValueError as error:
        raise ConfigError(f"--decoding {name}: {quoted(value)} is no number", hint=HINT) from error
    if fields is None:
        raise ConfigError(f"there is no decoding {quoted(name)}", hint=HINT)
    try:
        Sampling(**fields)
    except ConfigError as error:
        raise ConfigError(f"--decoding {name}: {error.message}", hint=error.hint) from error
    return Decoding(name, fields)


def _fields(kind: str, value: str) -> dict[str, Any] | None:
    """Return the fields that a kind with a value stands for; None for no such kind."""
    if kind == "greedy" and not value:
        return {}
    if kind == "sample":
        return {"temperature": float(value or 1)}
    if kind == "beam":
        return {"beams": int(value or 4)}
    # each of these drops tokens before one is drawn, so the rest is drawn as it is likely
    filters: dict[str, tuple[str, type[int] | type[float]]] = {
        "top-k": ("top_k", int),
        "top-p": ("top_p", float),
        "min-p": ("min_p", float),
    }
    if kind not in filters or not value:
        return None
    field, number = filters[kind]
    return {"temperature": 1.0, field: number(value)}
