"""Forms of rows: which fields a row must have, under the names that data sets give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgellm.files.strict_json import quoted
from edgellm.row_files.problems import BadRow

Roles = Mapping[str, tuple[str, ...]]
"""The parts of a row, and the names that each may have; the first that is there counts."""

Parts = Mapping[str, Any]
"""The parts of a row by their role."""


def always(_: Parts) -> bool:
    """Say yes."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way in which rows of a kind are written.

    Attributes:
        needs: parts that a row must have.
        may: parts that it may have.
        right: names of the parts that a prompt must not show.
        lacks: fields of other kinds.
        fits: whether the parts are what they should be; only for telling forms apart.
        template: of the prompt, in Jinja.
    """

    needs: Roles
    may: Roles = field(default_factory=dict)
    right: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    fits: Callable[[Parts], bool] = always
    template: str = ""

    def recognises(self, fields: Mapping[str, Any]) -> bool:
        """Say whether a row looks like one of this form."""
        if any(name in fields for name in self.lacks):
            return False
        return self.is_complete(fields) and self.fits(self._parts(fields))

    def is_complete(self, fields: Mapping[str, Any]) -> bool:
        """Say whether a row has the fields, whatever is in them."""
        return all(any(name in fields for name in names) for names in self.needs.values())

    def read(
        self, fields: Mapping[str, Any], like: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the parts of a row by role; None for those that it may have and lacks.

        Args:
            fields: of the row.
            like: fields of another row of the file, whose names a message uses.

        Raises:
            BadRow: a part is missing, or null.
        """
        for names in self.needs.values():
            if any(_has(fields, name) for name in names):
                continue
            null = [name for name in names if name in fields]
            if null:
                raise BadRow(f"{null[0]} is null", hint="give it a value, or drop the row")
            usual = [name for name in names if name in (like or {})]
            if usual:
                raise BadRow(f"there is no {usual[0]}", hint="add it, or drop the row")
            found = ", ".join(quoted(name) for name in list(fields)[:10]) or "none"
            raise BadRow(
                f"there is no {' or '.join(names)}; the fields are {found}",
                hint="name the fields of all rows as the kind has them",
            )
        return self._parts(fields)

    def described(self) -> str:
        """Return the fields that it needs, for a message."""
        return ", ".join(names[0] for names in self.needs.values())

    def hidden(self) -> set[str]:
        """Return the names of fields that would give the answer away."""
        roles = {**self.needs, **self.may}
        return {name for role in self.right for name in (role, *roles.get(role, ()))}

    def _parts(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        roles = {**self.needs, **self.may}
        found: dict[str, Any] = {
            role: next((fields[name] for name in names if _has(fields, name)), None)
            for role, names in roles.items()
        }
        for role in self.may:
            value = found[role]
            if isinstance(value, str) and not value.strip():
                found[role] = None
        return found


def _has(fields: Mapping[str, Any], name: str) -> bool:
    return fields.get(name) is not None


def text_of(parts: Parts, role: str) -> str:
    """Return a part that is a text.

    Raises:
        BadRow: it is none, or empty.
    """
    value = parts[role]
    if not isinstance(value, str):
        raise BadRow(f"{role} is {quoted(value)}; it must be a text", hint="write it in quotes")
    if not value.strip():
        raise BadRow(f"{role} is empty", hint=f"give {role} a text, or drop the row")
    return value.strip()


def texts_of(value: object, role: str) -> tuple[str, ...]:
    """Return a part that is a text or a list of texts, without the empty ones.

    Raises:
        BadRow: it is neither.
    """
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return tuple(text.strip() for text in value if text.strip())
    raise BadRow(
        f"{role} is {quoted(value)}; it must be a text or a list of texts",
        hint=f"write {role} as a list of texts",
    )
