"""Print who imports whom, folder by folder, ground floor first: python scripts/import_ladder.py

Read from the code's own import statements, those inside functions included; imports for the type
checker alone (`if TYPE_CHECKING:`) do not count. docs/architecture.md holds the table, and
tests/test_imports.py compares the two.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOPS = {"edgellm": "edgellm", "converters": "edgellm.converters", "bench": "edgellm.bench"}
Graph = Mapping[str, set[str]]


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return the file of every module by its dotted name; a package's is its __init__.py."""
    found = {}
    for folder, package in TOPS.items():
        for path in sorted((root / folder).rglob("*.py")):
            inner = path.relative_to(root / folder).with_suffix("").parts
            found[".".join([package, *inner]).removesuffix(".__init__")] = path
    return found


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the import statements of a module, but for those of the type checker."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and _is_for_types(node.test):
            for statement in node.orelse:
                yield from statements(statement)
        elif not isinstance(node, ast.expr):
            yield from statements(node)


def _is_for_types(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def imports(module: str, path: Path, known: Mapping[str, Path]) -> set[str]:
    """Return the modules of the project that one module imports."""
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        source = node.module or ""
        if node.level:
            parents = package.split(".")
            source = ".".join([*parents[: len(parents) - node.level + 1], *source.split(".")])
        for alias in node.names:
            inner = f"{source}.{alias.name}"
            found.add(inner if inner in known else source)
    return {target for target in found if target in known} - {module}


def module_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Return what each module imports."""
    known = modules(root)
    return {module: imports(module, path, known) for module, path in known.items()}


def folder_of(path: Path, root: Path = ROOT) -> str:
    """Return a module's folder; files at the top of the three folders stand for themselves."""
    place = path.relative_to(root)
    if len(place.parts) == 2:
        place = place.parent if path.stem == "__init__" else place.with_suffix("")
    else:
        place = place.parent
    return place.as_posix().removeprefix("edgellm/")


def folder_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Return which folders each folder imports from."""
    return folders_of(module_graph(root), root)


def folders_of(imported: Graph, root: Path = ROOT) -> dict[str, set[str]]:
    """Return which folders each folder imports from, of what each module imports."""
    places = {module: folder_of(path, root) for module, path in modules(root).items()}
    graph: dict[str, set[str]] = {}
    for module, targets in imported.items():
        own = places[module]
        graph.setdefault(own, set()).update({places[target] for target in targets} - {own})
    return graph


def circle(graph: Graph) -> list[str]:
    """Return a circle of imports, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])[::-1]
    return []


def ladder(graph: Graph) -> list[list[str]]:
    """Return the floors: whoever stands on one imports only from floors below it."""
    floors: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        floors[name] = 1 + max((floors[target] for target in graph[name]), default=0)
    rows: list[list[str]] = [[] for _ in range(max(floors.values()))]
    for name, floor in sorted(floors.items()):
        rows[floor - 1].append(name)
    return rows


def table(graph: Graph) -> str:
    """Return the ladder of folders as text, a floor a line."""
    rows = ladder(graph)
    return "\n".join(f"{floor:2}  {'   '.join(names)}" for floor, names in enumerate(rows, 1))


if __name__ == "__main__":
    imported = module_graph()
    folders = folders_of(imported)
    for graph in (imported, folders):
        if found := circle(graph):
            sys.exit(f"a circle of imports: {' -> '.join(found)}")
    print(table(folders))
