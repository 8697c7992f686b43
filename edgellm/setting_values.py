"""Checks of single values from a caller: each returns the value as plain Python has it.

Numbers may be NumPy's; a truth value is not a number, a text neither.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from numbers import Integral, Real
from operator import index
from os import PathLike, fspath
from typing import Any, TypeGuard

from edgellm.errors import ConfigError

_NO_LISTS = (str, bytes, bytearray, memoryview, Mapping, Set)
"""Types that can be iterated, and are not a list that a caller means."""

MAX_SHOWN = 40
"""Characters of a refused value that an error shows."""


def whole_number(name: str, value: object, low: int, high: int) -> int:
    """Return a whole number. Raises ConfigError where it is none, or outside its range."""
    if isinstance(value, Integral) and not isinstance(value, bool) and low <= int(value) <= high:
        return int(value)
    raise _refused(name, value, f"a whole number between {low} and {high}")


def number(
    name: str, value: object, low: float, high: float, *, low_excluded: bool = False
) -> float:
    """Return a number. Raises ConfigError where it is none, or outside its range."""
    found = math.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
    if low < found <= high or (found == low and not low_excluded):
        return found
    allowed = f"a number between {low:g} and {high:g}"
    if low_excluded:
        allowed = f"a number above {low:g} and at most {high:g}"
    raise _refused(name, value, allowed)


def truth(name: str, value: object) -> bool:
    """Return true or false. Raises ConfigError where a value is neither."""
    if is_truth(value):
        return bool(value)
    raise _refused(name, value, "true or false")


def is_truth(value: object) -> bool:
    """Return whether a value is true or false, also as NumPy has them."""
    numpy = sys.modules.get("numpy")  # who has one of its values has imported it
    return isinstance(value, bool) or (numpy is not None and isinstance(value, numpy.bool_))


def choice(name: str, value: object, choices: Sequence[Any]) -> Any:
    """Return one of some texts or numbers. Raises ConfigError where a value is none of them."""
    for one in choices:
        if isinstance(value, Integral | str) and not isinstance(value, bool) and value == one:
            return one
    raise _refused(name, value, f"one of {', '.join(map(str, choices))}")


def path_text(name: str, value: object, allowed: str) -> str:
    """Return a path or name as a text. Raises ConfigError where it is none, or empty."""
    text = None
    if isinstance(value, str | PathLike):
        text = fspath(value)
    if isinstance(text, str) and text and "\0" not in text:
        return text
    raise _refused(name, value, allowed)


def require_text(name: str, value: object) -> str:
    """Return a text, which may be empty. Raises ConfigError where a value is none."""
    if isinstance(value, str):
        return value
    raise _refused(name, value, "a text")


def listed(name: str, value: object, allowed: str) -> list[Any]:
    """Return the items of a list, or of what else has an order. Raises ConfigError."""
    return list(iterated(name, value, allowed))


def iterated(name: str, value: object, allowed: str) -> Iterator[Any]:
    """Return an iterator over what has an order. Raises ConfigError where a value has none."""
    if isinstance(value, Iterable) and not isinstance(value, _NO_LISTS):
        try:
            return iter(value)
        except TypeError as error:  # an array without dimensions
            raise _refused(name, value, allowed) from error
    raise _refused(name, value, allowed)


def listed_integers(name: str, value: object, allowed: str) -> list[int]:
    """Return whole numbers as Python has them, NumPy's too. Raises ConfigError."""
    integers = []
    for item in listed(name, value, allowed):
        try:
            # a tensor of torch's has an index also where it is a truth value
            if isinstance(item, bool) or str(getattr(item, "dtype", "")) == "torch.bool":
                raise TypeError
            integers.append(index(item))
        except TypeError as error:
            raise ConfigError(
                f"{name} has {shown(item)} in it, which must be a whole number"
            ) from error
    return integers


def callback(name: str, value: object) -> None:
    """Raise ConfigError where a value is neither None nor can be called."""
    if value is not None and not callable(value):
        raise _refused(name, value, "a function, or left out")


def is_int(value: object) -> TypeGuard[int]:
    """Return whether ``value`` is a whole number (a truth value is none)."""
    return isinstance(value, int) and not isinstance(value, bool)


def set_checked(settings: object, checked: Mapping[str, object]) -> None:
    """Put checked values into frozen settings, while they are made."""
    for name, value in checked.items():
        object.__setattr__(settings, name, value)


def functions(name: str, value: object) -> tuple[Any, ...]:
    """Return the functions of a list, or the only one. Raises ConfigError."""
    if callable(value) and not isinstance(value, list):
        return (value,)
    found = tuple(listed(name, value, "a list of functions"))
    for one in found:
        if not callable(one):
            raise ConfigError(
                f"{name} has {shown(one)}, which is not a function",
                hint="give functions that take the tokens so far and the logits",
            )
    return found


MAX_DIGITS = 20
"""Digits of a token id; Python refuses to read thousands of them."""


def token_number(name: str, token: object) -> int:
    """Return a token id, which JSON has as a text of digits. Raises ConfigError."""
    if isinstance(token, str) and token.isascii() and token.isdigit() and len(token) <= MAX_DIGITS:
        token = int(token)
    if isinstance(token, Integral) and not isinstance(token, bool) and int(token) >= 0:
        return int(token)
    raise ConfigError(
        f"{name} has {shown(token)}, which is not a token id",
        hint="llm.tokenizer.encode(text, add_special_tokens=False) gives a text's ids",
    )


def shown(value: object) -> str:
    """Return a value as an error shows it: its beginning."""
    try:
        text = repr(value)
    except Exception:  # a number of more digits than Python writes, or an object's own fault
        return f"of the type {type(value).__name__}"
    if len(text) > MAX_SHOWN:
        return text[:MAX_SHOWN] + "..."
    return text


def _refused(name: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"{name} is {shown(value)}; it must be {allowed}")
