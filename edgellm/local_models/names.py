"""Names of models on this machine, found without looking into them.

Nothing is imported that takes time: a shell asks while a person types.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from edgellm.hub.resolve import bundled_names

MOST_FOLDERS = 1000
"""Entries of a folder that are looked at."""


def model_names() -> list[str]:
    """Return the names of bundled models and of repositories in the Hub's cache."""
    return [*bundled_names(), *cached_repositories()]


def cached_repositories() -> list[str]:
    """Return the model repositories that are in the Hub's cache, also in part."""
    from huggingface_hub import constants

    separator = constants.REPO_ID_SEPARATOR
    found = []
    with suppress(OSError):
        for folder in sorted(Path(constants.HF_HUB_CACHE).iterdir()):
            kind, _, name = folder.name.partition(separator)
            if kind == "models" and name and (folder / "snapshots").is_dir():
                found.append(name.replace(separator, "/"))
    return found


def model_folders(beginning: str) -> list[str]:
    """Return the model folders whose paths begin with a text, and those one level further down."""
    parent, _, _ = beginning.rpartition("/")
    place = Path(parent or ("/" if beginning.startswith("/") else ".")).expanduser()
    prefix = beginning[: len(parent) + 1] if "/" in beginning else ""
    found = []
    for name in _folders(place):
        path = f"{prefix}{name}"
        if not path.startswith(beginning):
            continue
        if is_model_folder(place / name):
            found.append(path)
        found += [
            f"{path}/{inner}"
            for inner in _folders(place / name)
            if is_model_folder(place / name / inner)
        ]
    return found


def is_model_folder(folder: Path) -> bool:
    """Return whether a folder has the config that each model folder has."""
    return (folder / "config.json").is_file()


def _folders(place: Path) -> Iterator[str]:
    """Yield the names of the folders in a place, but for hidden ones."""
    with suppress(OSError), os.scandir(place) as entries:
        names = [
            entry.name
            for entry in islice(entries, MOST_FOLDERS)
            if not entry.name.startswith(".") and entry.is_dir()
        ]
        yield from sorted(names)
