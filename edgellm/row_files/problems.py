"""The problems of a file's rows, gathered so that all of them are told at once."""

from __future__ import annotations

from pathlib import Path

from edgellm.errors import FormatError

MOST_SHOWN = 3


class BadRow(ValueError):  # noqa: N818 - what it says is about the row, as StopIteration is
    """A row that asks nothing: a fact, and a next step as ``hint``."""

    def __init__(self, fact: str, *, hint: str) -> None:
        super().__init__(fact)
        self.hint = hint


class Problems:
    """The problems of one file, in the order of its lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[tuple[int, str, str]] = []

    def add(self, line: int, problem: BadRow) -> None:
        """Keep what is wrong with the row in a line."""
        self._found.append((line, str(problem), problem.hint))

    def raise_found(self) -> None:
        """Raise FormatError with the first problems and the number of the others, if any."""
        if not self._found:
            return
        self._found.sort(key=lambda problem: problem[0])
        shown = [f"line {line}: {fact}" for line, fact, _ in self._found[:MOST_SHOWN]]
        others = len(self._found) - len(shown)
        if others:
            lines = "lines have" if others > 1 else "line has"
            shown.append(f"{others} more {lines} a problem")
        raise FormatError(f"{self._path}, {'; '.join(shown)}", hint=self._found[0][2])
