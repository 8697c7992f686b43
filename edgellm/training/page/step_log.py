"""The steps of a run, a line of JSON each, in a file beside what is saved."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgellm.files.atomic import append_to_file, write_file
from edgellm.files.bounded import read_bounded
from edgellm.files.strict_json import loads_strict
from edgellm.settings import is_int

FILE = "training.jsonl"

MAX_BYTES = 1 << 30

NUMBERS = ("epoch", "loss", "rate", "norm", "tokens", "asked", "seconds")
LEFT_OUT = ("steps", "ends_epoch")
"""What is the run's, and not the step's."""


class StepLog:
    """The steps that a run has taken; those after the last save are in memory alone.

    Args:
        folder: that the run writes to.
        step: steps of the run so far: what the file has beyond them is taken again.

    Attributes:
        steps: of the run, as the file has them.

    Raises:
        FormatError, ReadError: the file cannot be read.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / FILE
        self._unwritten: list[Mapping[str, Any]] = []
        self._begun = False
        self.steps: list[Mapping[str, Any]] = []
        if step and self._path.exists():
            # Ctrl-C between two lines of a save can put a step there twice
            taken = {one["step"]: one for one in _read(self._path) if one["step"] <= step}
            self.steps = list(taken.values())

    def add(self, report: Mapping[str, Any]) -> None:
        """Note a step, by the names of its figures."""
        # a loss that is not finite has no place in JSON
        plain = {name: _finite(value) for name, value in report.items() if name not in LEFT_OUT}
        for name in ("shares", "lines"):  # of several machines, and of a step that was not applied
            if not plain.get(name):
                plain.pop(name, None)
        plain["figures"] = {name: _finite(value) for name, value in report["figures"].items()}
        self.steps.append(plain)
        self._unwritten.append(plain)

    def save(self) -> None:
        """Put the steps on the disk. Raises ConversionError."""
        if self._begun:
            append_to_file(self._path, _lines(self._unwritten))
        else:  # lines of steps that are taken again, or of another run, are gone
            write_file(self._path, [_lines(self.steps)])
        self._begun = True
        self._unwritten.clear()


def _lines(steps: list[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(step) + "\n" for step in steps).encode()


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _read(path: Path) -> list[Mapping[str, Any]]:
    """Return the steps of a file; a line that is damaged or cut off is left out."""
    found = []
    for line in read_bounded(path, MAX_BYTES).decode("utf-8", "replace").splitlines():
        with suppress(ValueError, RecursionError):
            step = loads_strict(line)
            if _is_step(step):
                found.append(step)
    return found


def _is_step(step: Any) -> bool:
    if not isinstance(step, dict) or not is_int(step.get("step")):
        return False
    figures = step.get("figures")
    if not isinstance(figures, dict):
        return False
    numbers = [step.get(name) for name in NUMBERS] + list(figures.values())
    return all(value is None or isinstance(value, int | float) for value in numbers)
