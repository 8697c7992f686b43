"""An index of the tasks that are asked for: one of all 14,000 files takes ten seconds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def index_of(names: Sequence[str], folder: Path | None) -> Any:
    """Return the harness' index of some tasks, without those that are nowhere.

    Args:
        names: the tasks, and groups of tasks.
        folder: a folder with tasks of one's own, which go before the harness' own.
    """
    from lm_eval import tasks as package

    root = harness_folder()
    own: list[str] = []
    if folder is not None:
        own = [str(folder)]
    index = package.TaskManager(include_path=own, include_defaults=False)
    taken: set[Path] = set()
    while missing := set(_missing(names, index.task_index)):
        found = set(folders_with(missing, root)) - taken
        taken |= found
        if not found and not set(names) <= set(index.task_index):
            return index
        if not found:  # members of a group, named in some other way
            return package.TaskManager(include_path=own)
        paths = [*map(str, sorted(taken)), *own]  # later ones replace earlier ones
        index = package.TaskManager(include_path=paths, include_defaults=False)
    kinds = {index.task_index[name].kind.name for name in names}
    if "TAG" in kinds and len(taken) > 1:  # of a tag's members, only the last folder's are kept
        return package.TaskManager(include_path=own)
    return index


def harness_folder() -> Path:
    """Return the folder with the harness' own tasks."""
    from lm_eval import tasks

    return Path(tasks.__file__).parent


def folders_with(names: Iterable[str], root: Path) -> Iterator[Path]:
    """Yield the folders in ``root`` with a YAML file that names one of the tasks.

    That is so where tasks, groups and tags are defined, and of members of a group.
    """
    anyone = b"|".join(re.escape(name.encode()) for name in names)
    line = re.compile(
        rb"^\s*(?:-|task:|group:|tag:)\s*(?:- )?[\"']?(?:" + anyone + rb")[\"']?\s*$"
        rb"|^tag:\s*\[.*(?<![\w.-])(?:" + anyone + rb")(?![\w.-])",
        re.M,
    )
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if any(line.search(text) for text in _texts(folder)):
            yield folder


def names_in(root: Path) -> set[str]:
    """Return the names of the tasks and groups that are defined in a folder."""
    line = re.compile(rb"^(?:task|group):\s*[\"']?([\w.-]+)[\"']?\s*$", re.M)
    return {name.decode() for text in _texts(root) for name in line.findall(text)}


def _texts(folder: Path) -> Iterator[bytes]:
    """Yield what is in YAML files; some that others include have no suffix."""
    for file in folder.rglob("*yaml"):
        if file.is_file():
            yield file.read_bytes()


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
