"""Print figures of how the code reads, a line per folder: python scripts/code_figures.py [ROOT]"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path

PRODUCT = ("edgellm", "converters", "bench")
COLUMNS = (
    "files",
    "lines",
    "code",
    "tokens",
    "comments",
    "if-else",
    "over 100",
    "riddles",
    "longest",
)


@dataclass
class Figures:
    """Sums over files.

    ``code`` leaves out blank lines, comments and docstrings; so does ``tokens``, which are Python's
    and do not depend on how lines are broken.
    """

    files: int = 0
    lines: int = 0
    code: int = 0
    tokens: int = 0
    comments: int = 0
    conditionals: int = 0
    wide: int = 0
    riddles: int = 0
    longest: int = 0

    def add(self, other: Figures) -> None:
        """Count a file, or the files of a folder."""
        for name in vars(self):
            if name != "longest":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest = max(self.longest, other.longest)

    def row(self) -> list[str]:
        """Return the cells of a table: comments and conditional expressions are per 1,000 lines."""
        thousands = max(self.lines, 1) / 1000
        rates = [f"{self.comments / thousands:.1f}", f"{self.conditionals / thousands:.1f}"]
        counts = [self.wide, self.riddles, self.longest]
        sizes = [self.files, self.lines, self.code, self.tokens]
        return [*map(str, sizes), *rates, *map(str, counts)]


def is_riddle(docstring: str) -> bool:
    """Return whether a docstring's first line is too long, or opens where no contract begins."""
    first = docstring.strip().partition("\n")[0]
    return len(first) > 90 or first.startswith(("What ", "Whose "))


def riddles(tree: ast.AST) -> int:
    """Return how many docstrings of a module are riddles."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = (
        ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)
    )
    return sum(is_riddle(docstring) for docstring in docstrings if docstring)


def measure(path: Path) -> Figures:
    """Return the figures of one file."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    tree = ast.parse(text)
    written = {  # lines of strings that stand alone: docstrings, and those below attributes
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    remarks = [token for token in tokens if token.type == tokenize.COMMENT]
    layout = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT}
    code = [token for token in tokens if token.type not in layout and token.start[0] not in written]
    alone = {token.start[0] for token in remarks if not token.line[: token.start[1]].strip()}
    blank = {number for number, line in enumerate(lines, 1) if not line.strip()}
    return Figures(
        files=1,
        lines=len(lines),
        code=len(lines) - len(written | alone | blank),
        tokens=len(code),
        comments=len(remarks),
        conditionals=sum(isinstance(node, ast.IfExp) for node in ast.walk(tree)),
        wide=sum(len(line) > 100 for line in lines),
        riddles=riddles(tree),
        longest=len(lines),
    )


def main() -> None:
    """Print the table."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    folders: dict[str, Figures] = {}
    total = Figures()
    for top in PRODUCT:
        for path in sorted((root / top).rglob("*.py")):
            found = measure(path)
            folder = path.parent.relative_to(root).as_posix()
            folders.setdefault(folder, Figures()).add(found)
            total.add(found)
    print("".join([f"{'folder':<28}", *(f"{name:>10}" for name in COLUMNS)]))
    for folder, found in [*folders.items(), ("all", total)]:
        print("".join([f"{folder:<28}", *(f"{cell:>10}" for cell in found.row())]))


if __name__ == "__main__":
    main()
