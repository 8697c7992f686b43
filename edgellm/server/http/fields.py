"""Reads the fields of a request; each that is wrong is refused by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgellm.server.http.api_error import ApiError, refused
from edgellm.setting_values import is_int, shown


class Fields:
    """An object of a request. A field that is null is one that was left out, as clients have it.

    Args:
        values: the object.
        path: where it is in the request, such as ``tools[0]``; empty: it is the request.
    """

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values = values
        self._path = path

    def path(self, name: str) -> str:
        """Return where a field is in the request."""
        if self._path:
            return f"{self._path}.{name}"
        return name

    def has(self, name: str) -> bool:
        """Return whether a field was given."""
        return self._values.get(name) is not None

    def any(self, name: str, default: Any = None) -> Any:
        """Return a field of any kind."""
        value = self._values.get(name)
        if value is None:
            return default
        return value

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text."""
        value = self.any(name, default)
        if not isinstance(value, str):
            raise self.wrong(name, "a text")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self.any(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """Return a number of a range; None where it was left out."""
        value = self.any(name)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            raise self.wrong(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def whole(self, name: str, low: int, high: int) -> int | None:
        """Return a whole number of a range; None where it was left out."""
        value = self.any(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not is_int(value) or not low <= value <= high:
            raise self.wrong(name, f"a whole number from {low} to {high}")
        return value

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """Return one of some texts."""
        value = self.any(name, default)
        if value not in choices:
            raise self.wrong(name, " or ".join(map(repr, choices)))
        return str(value)

    def object(self, name: str) -> Fields | None:
        """Return an object; None where it was left out."""
        value = self.any(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Fields(value, self.path(name))

    def objects(self, name: str, *, at_most: int) -> list[Fields]:
        """Return a list of objects; an empty one where it was left out."""
        found = []
        for place, value in enumerate(self.items(name, at_most=at_most)):
            path = f"{self.path(name)}[{place}]"
            if not isinstance(value, dict):
                raise refused(path, f"{path} must be an object")
            found.append(Fields(value, path))
        return found

    def items(self, name: str, *, at_most: int) -> list[Any]:
        """Return a list of anything; an empty one where it was left out."""
        value = self.any(name, [])
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        if len(value) > at_most:
            raise refused(
                self.path(name), f"{self.path(name)} has {len(value)} items, of {at_most} allowed"
            )
        return value

    def values(self) -> dict[str, Any]:
        """Return the object as it was given."""
        return dict(self._values)

    def names(self) -> Iterator[str]:
        """Return the names of the fields that were given."""
        return (name for name in self._values if self.has(name))

    def refuse(self, unsupported: Mapping[str, str]) -> None:
        """Refuse fields that would change the answer's meaning.

        Args:
            unsupported: their names, and what to do instead.
        """
        for name in self.names():
            if name in unsupported:
                raise refused(
                    self.path(name),
                    f"{self.path(name)} is not supported: {unsupported[name]}",
                    "unsupported_parameter",
                )

    def allow(self, name: str, *values: Any, instead: str) -> None:
        """Refuse a field unless it has one of the values that mean what is done anyway."""
        value = self.any(name)
        is_flag = isinstance(value, bool)  # which Python takes for 0 or 1
        allowed = [one for one in values if isinstance(one, bool) == is_flag]
        if self.has(name) and value not in allowed:
            raise refused(
                self.path(name),
                f"{self.path(name)} {shown(self.any(name))} is not supported: {instead}",
                "unsupported_value",
            )

    def wrong(self, name: str, expected: str) -> ApiError:
        """Return the error of a field: what it must be."""
        path = self.path(name)
        if not self.has(name):
            return refused(path, f"{path} is missing; it must be {expected}")
        return refused(path, f"{path} is {shown(self.any(name))}; it must be {expected}")
