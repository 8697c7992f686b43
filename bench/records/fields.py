"""Declared types of a record's fields, and the check that a value has its type."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from edgellm.errors import BackendError
from edgellm.files.strict_json import quoted


@dataclass(frozen=True, slots=True)
class Between:
    """The limits of a number; figures derived from numbers within them are finite.

    Attributes:
        least: the smallest.
        most: the largest.
        or_zero: whether 0 may stand there too, though it lies below the smallest.
    """

    least: float
    most: float
    or_zero: bool = False

    def __contains__(self, value: float) -> bool:
        """Return whether a number lies within the limits; nan lies nowhere."""
        return self.least <= value <= self.most or (self.or_zero and value == 0)

    def __str__(self) -> str:
        """Return the limits in words."""
        return f"{'0, or ' * self.or_zero}from {self.least:g} to {self.most:g}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The types of some keys of an object; each may be missing, and others hold anything."""

    types: Mapping[str, Any]


MAX_FLOAT = sys.float_info.max

Count = Annotated[int, Between(0, 10**18)]
"""Tokens, bytes, repetitions."""

Several = Annotated[int, Between(1, 10**9)]
"""Threads, sequences: one at least."""

Bits = Annotated[int, Between(1, 64)]
Seconds = Annotated[float, Between(1e-15, 1e12, or_zero=True)]
Rate = Annotated[float, Between(1e-12, 1e15)]
"""Of a device: thousands of millions of bytes or operations per second."""

Joules = Annotated[float, Between(1e-15, 1e18, or_zero=True)]
Operations = Annotated[float, Between(1, 1e30, or_zero=True)]
Score = Annotated[float, Between(1, 10)]
Fraction = Annotated[float, Between(0, 1)]
Distance = Annotated[float, Between(0, 1e300)]
Perplexity = Annotated[float, Between(0.5, 1e305)]
Figure = Annotated[float, Between(-1e305, 1e305)]
"""Of a question, or of a metric: any number that is one."""

Environment = Annotated[
    Mapping[str, Any],
    Keys(
        {
            "time": str | None,
            "chip": str | None,
            "cores": Several | None,
            "memory_bytes": Count | None,
            "packages": Mapping[str, str | None],
        }
    ),
]
"""The machine and the versions; what is no more than shown may be of any type."""

Machine = Annotated[
    Mapping[str, Any],
    Keys(
        {
            "name": str,
            "chip": str | None,
            "memory_bytes": Count | None,
            "budget_bytes": Count | None,
            "planned_bytes": Count | None,
            "layers": Count | None,
            "share": Fraction | None,
        }
    ),
]
"""One of several machines: what it is, and its part of the model."""

MachineLink = Annotated[
    Mapping[str, Any],
    Keys(
        {
            "first": str,
            "second": str,
            "round_trip_seconds": Seconds | None,
            "bytes_per_second": Annotated[float, Between(1e-3, 1e18)] | None,
        }
    ),
]
"""Between two machines: how long a token's hidden state takes there and back, and the rate."""


class FieldError(BackendError):
    """A record's field is missing, or holds what it cannot.

    Args:
        name: the name of the field, with its place in a list.
        fact: what stands there.
        expected: what must.
    """

    def __init__(self, name: str, fact: str, expected: str) -> None:
        super().__init__(f"{name} is {fact}, and must be {expected}")


def checked(value: object, declared: Any, name: str) -> Any:
    """Return a value as its declared type has it: a list as a tuple, a whole float as an int.

    Raises:
        FieldError: it is of another type, or outside the type's limits.
    """
    declared, *rules = _parts(declared)
    if declared is Any:
        return value
    options = get_args(declared)
    if NoneType in options:
        if value is None:
            return None
        return checked(value, options[0], name)
    origin = get_origin(declared) or declared
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(checked(item, options[0], f"{name}[{at}]") for at, item in enumerate(value))
    if origin is Mapping and isinstance(value, Mapping):
        return _checked_items(value, options[1], rules, name)
    if origin in {str, bool} and isinstance(value, origin):
        return value
    if origin in {int, float}:
        number = _as_number(value, origin)
        if number is not None and all(number in limits for limits in rules):
            return number
    raise FieldError(name, quoted(value), _in_words(origin, rules))


def in_words(declared: Any) -> str:
    """Return what a declared type holds."""
    declared, *rules = _parts(declared)
    options = get_args(declared)
    if NoneType in options:
        return in_words(options[0])
    return _in_words(get_origin(declared) or declared, rules)


def _parts(declared: Any) -> tuple[Any, ...]:
    """Return a type without its rules, and them."""
    if get_origin(declared) is Annotated:
        return get_args(declared)
    return (declared,)


def _checked_items(
    values: Mapping[Any, Any], declared: Any, rules: list[Any], name: str
) -> dict[str, Any]:
    types = {key: kind for rule in rules for key, kind in rule.types.items()}
    return {
        checked(key, str, f"a key of {name}"): checked(
            value, types.get(key, declared), f"{name}.{key}"
        )
        for key, value in values.items()
    }


def _as_number(value: object, kind: type[int] | type[float]) -> int | float | None:
    """Return a number as an int or a float; None for what is not such a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # an int of hundreds of digits has no float, and half a token is not an int
    if abs(value) > MAX_FLOAT or (kind is int and value % 1):
        return None
    return kind(value)


_WORDS: Mapping[Any, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list",
    Mapping: "an object",
}


def _in_words(kind: Any, rules: list[Any]) -> str:
    limits = [str(rule) for rule in rules if isinstance(rule, Between)]
    return " ".join([_WORDS[kind], *limits])
