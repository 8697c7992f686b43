"""A terminal for tests: what stays on it, and a clock that is told the time."""

import re


class Screen:
    """As much of a terminal as shows what stays on it; lines that scroll away are kept."""

    def __init__(self, height):
        self.height, self.lines, self.row, self.column = height, [""], 0, 0

    def write(self, text):
        for part in re.split(r"(\x1b\[[0-9;?]*[a-zA-Z]|\r|\n)", text):
            self._take(part)

    def _take(self, part):
        up = re.fullmatch(r"\x1b\[(\d*)A", part)
        left = re.fullmatch(r"\x1b\[(\d+)D", part)
        if part == "\r":
            self.column = 0
        elif part == "\n":
            self.row, self.column = self.row + 1, 0
            if self.row == len(self.lines):
                self.lines.append("")
        elif left:
            self.column -= int(left[1])
        elif up:
            self.row -= int(up[1] or 1)
            assert self.row >= 0
            assert len(self.lines) - self.row <= self.height, (
                "what has scrolled away cannot be written to"
            )
        elif part == "\x1b[2K":
            self.lines[self.row] = ""
        elif part == "\x1b[K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif not part.startswith("\x1b"):
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + part + line[self.column + len(part) :]
            self.column += len(part)

    def flush(self):
        """Nothing is held back."""

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.lines).strip("\n")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now
