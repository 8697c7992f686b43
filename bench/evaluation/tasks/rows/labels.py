"""Labels: those of a file or those given, and which of them a row has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgellm.errors import ConfigError
from edgellm.files.strict_json import quoted
from edgellm.row_files.problems import BadRow

MOST_NAMED = 8

NO_GOLD = ("-1", "-")
"""Labels of rows whose right answer nobody knows, or the data set keeps to itself."""


class LeftOut(Exception):  # noqa: N818 - nothing went wrong
    """A row that cannot be asked: its data set keeps the answer to itself, or its text is empty."""


def given_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Return labels that a person gave, without the blanks round them.

    Raises:
        ConfigError: fewer than two, an empty one, or one twice.
    """
    found = tuple(label.strip() for label in labels)
    if len(found) < 2:
        raise ConfigError(
            f"there is one label, {named(found)}: nothing to choose from",
            hint="give all of them, such as --labels no,yes",
        )
    if not all(found):
        raise ConfigError("one of the labels is empty", hint="write --labels no,yes")
    doubles = {label for label in found if found.count(label) > 1}
    if doubles:
        raise ConfigError(f"the label {min(doubles)} is given twice", hint="give each label once")
    return found


def labels_of(values: Iterable[object]) -> tuple[str, ...]:
    """Return the labels that occur, in order: numbers by size, texts by the alphabet.

    Raises:
        ConfigError: there is one only.
    """
    values = list(values)
    found = {str(value).strip() for value in values if is_label(value)}
    if len(found) == 1 and all(map(is_label, values)):
        raise ConfigError(
            f"all rows have the label {named(list(found))}: nothing to choose from",
            hint="name the others too, such as --labels no,yes",
        )
    return tuple(sorted(found, key=lambda label: (_number(label), label)))


def label_number(value: object, labels: Sequence[str], name: str = "label") -> int:
    """Return the number of a row's label, which it has as a text or as that number.

    Raises:
        BadRow: it has none of the labels.
        LeftOut: it is -1.
    """
    if not is_label(value):
        raise BadRow(
            f"{name} is {quoted(value)}; it must be a text or a whole number",
            hint=f"write {name} as one text: a row has one right answer",
        )
    text = str(value).strip()
    if text in labels:
        return labels.index(text)
    if text in NO_GOLD:
        raise LeftOut
    number = _number(text)
    if number in range(len(labels)):
        return int(number)
    raise BadRow(
        f"{name} {quoted(value)} is none of the labels {named(labels)}",
        hint="correct the row, or name all labels with --labels",
    )


def is_label(value: object) -> bool:
    """Say whether a value can be a label: a text that is not empty, or a whole number."""
    return isinstance(value, int) or (isinstance(value, str) and bool(value.strip()))


def named(labels: Sequence[str]) -> str:
    """Return the first labels, for a message."""
    shown = ", ".join(labels[:MOST_NAMED])
    if len(labels) > MOST_NAMED:
        return f"{shown} and {len(labels) - MOST_NAMED} more"
    return shown


def _number(text: str) -> float:
    if text.isascii() and text.isdigit():
        return int(text)
    return float("inf")
