"""An index of the tasks that are asked for: one of all 14,000 files takes ten seconds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def index_of(names: Iterable[str], folder: Path | None) -> Any:
    """Return the harness' index of some tasks; of all its tasks where one of them is nowhere.

    Args:
        names: the tasks, and groups of tasks.
        folder: a folder with tasks of one's own, which go before the harness' own.
    """
    from lm_eval import tasks as package

    root = Path(package.__file__).parent
    own: list[str] = []
    if folder is not None:
        own = [str(folder)]
    index = package.TaskManager(include_path=own, include_defaults=False)
    taken: set[Path] = set()
    while missing := set(_missing(names, index.task_index)):
        found = set(folders_with(missing, root)) - taken
        taken |= found
        if not found:
            return package.TaskManager(include_path=own)
        paths = [*map(str, sorted(taken)), *own]  # later ones replace earlier ones
        index = package.TaskManager(include_path=paths, include_defaults=False)
    kinds = {index.task_index[name].kind.name for name in names}
    if "TAG" in kinds and len(taken) > 1:  # of a tag's members, only the last folder's are kept
        return package.TaskManager(include_path=own)
    return index


def folders_with(names: Iterable[str], root: Path) -> Iterator[Path]:
    """Yield the folders in ``root`` with a YAML file that has a line for one of the tasks.

    That is so of a task, a group and a tag where they are defined, and of members of a group.
    """
    alternatives = b"|".join(re.escape(name.encode()) for name in names)
    line = re.compile(
        rb"^\s*(?:-|task:|group:|tag:)\s*(?:- )?[\"']?(?:" + alternatives + rb")[\"']?\s*$", re.M
    )
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        files = folder.rglob("*yaml")  # some that others include have no suffix
        if any(line.search(file.read_bytes()) for file in files if file.is_file()):
            yield folder


def _missing(names: Iterable[str], index: Mapping[str, Any]) -> Iterator[str]:
    """Yield names that an index does not have, those of members of groups included."""
    for name in names:
        entry = index.get(name)
        if entry is None:
            yield name
        elif "group" in (entry.cfg or {}):
            yield from _missing(_members(entry.cfg), index)


def _members(group: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names in a group's configuration."""
    members = group.get("task") or []
    if isinstance(members, str):
        members = [members]
    for member in members:
        if isinstance(member, str):
            yield member
        elif "group" in member:
            yield from _members(member)
        elif isinstance(member.get("task"), str):
            yield member["task"]
