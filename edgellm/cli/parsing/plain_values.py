"""Values of options that need no check of typer's: plain words, numbers and paths.

Typer checks values with pydantic, whose import and schemas take 70 to 100 ms, a third of a short
command. What is not plain, or wrong, still goes there, so errors stay typer's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_PLAIN_TYPES: Mapping[Any, re.Pattern[str]] = {
    str: re.compile(r".*", re.DOTALL),
    int: re.compile(r"-?[0-9]{1,18}", re.ASCII),
    float: re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?", re.ASCII),
}
"""The types whose values are converted here, and how a value must be written for that."""


class _NotPlainError(Exception):
    """A value is typer's to convert."""


def convert_plain_values(parameters: list[Any]) -> None:
    """Let typer's parameters convert plain values without pydantic."""
    for parameter in parameters:
        # one that has been parsed before, or of a typer that keeps its annotations elsewhere
        if "process_value" in vars(parameter) or not hasattr(parameter, "type_descriptor"):
            continue
        parameter.process_value = _converter(parameter, parameter.process_value)


def _converter(parameter: Any, typers: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return ``process_value`` of a parameter; ``typers`` is typer's own."""

    def process_value(context: Any, value: Any) -> Any:
        try:
            plain = _plain(parameter, value)
        except _NotPlainError:
            return typers(context, value)
        if parameter.callback is not None:
            return parameter.callback(context, parameter, plain)
        return plain

    return process_value


def _plain(parameter: Any, value: Any) -> Any:
    """Return a value as its annotation says. Raises _NotPlainError."""
    several = parameter.multiple or parameter.nargs != 1
    if value is None or value == ():
        if parameter.required:
            raise _NotPlainError
        if several:
            return ()
        return None
    annotation = parameter.type_descriptor.annotation
    settings = parameter.type_descriptor.parameter_info
    if annotation == list[str] and parameter.multiple and parameter.nargs == 1:
        return list(value)
    if several:
        raise _NotPlainError
    if annotation is Path:
        return _plain_path(settings, value)
    return _plain_number_or_text(annotation, settings, value)


def _plain_path(settings: Any, value: Any) -> Path:
    """Return a path that typer would only wrap."""
    is_checked = settings.exists or settings.resolve_path or settings.path_type
    if is_checked or (os.path.lexists(value) and not os.access(value, os.R_OK)):
        raise _NotPlainError
    return Path(value)


def _plain_number_or_text(annotation: Any, settings: Any, value: Any) -> Any:
    if isinstance(value, str) and annotation in _PLAIN_TYPES:
        if not _PLAIN_TYPES[annotation].fullmatch(value):
            raise _NotPlainError
        value = annotation(value)
    # true is an int, too
    if type(value) is not annotation or annotation not in {*_PLAIN_TYPES, bool}:
        raise _NotPlainError
    low, high = settings.min, settings.max
    if (low is not None and value < low) or (high is not None and value > high):
        raise _NotPlainError
    return value
