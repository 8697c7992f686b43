"""A model's name becomes its folder: a path, a bundled model, or a Hub repository."""

from __future__ import annotations

import string
from difflib import get_close_matches
from pathlib import Path

from edgellm.errors import ModelNotFoundError
from edgellm.files.given_path import given_path

BUNDLED = Path(__file__).parents[1] / "bundled"

_ID_LETTERS = frozenset(string.ascii_letters + string.digits + "-_.")


def bundled_names() -> list[str]:
    """Return the names of the models that come with the package."""
    if not BUNDLED.is_dir():
        return []
    return sorted(path.name for path in BUNDLED.iterdir() if path.is_dir())


def locate(model: str | Path) -> Path:
    """Return the folder of a model; a Hub repository is downloaded once, with a progress bar.

    Args:
        model: an existing folder, a bundled name, or a Hub id.

    Raises:
        ModelNotFoundError: nothing has this name.
        ConfigError: it can be no path.
        DownloadError: the Hub cannot be reached, or refuses.
    """
    path = given_path(model)
    if path.is_dir():
        return path
    name = str(model)
    if name in bundled_names():
        return BUNDLED / name
    if path.exists():
        raise ModelNotFoundError(
            f"{name} is a file, not a model folder",
            hint=f"convert it first: edgellm convert {name} FOLDER",
        )
    if is_hub_id(name):
        from edgellm.hub.download import download

        return download(name)
    hint = "name a folder, a Hub id such as mlx-community/Llama-3.2-1B-Instruct-4bit, or stories"
    close = get_close_matches(name, bundled_names(), n=1)
    if close:
        hint = f"did you mean {close[0]}?"
    raise ModelNotFoundError(f"there is no model {name!r}", hint=hint)


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a Hub repository, ``owner/name``."""
    owner, _, repository = name.partition("/")
    if not owner or not repository or owner in {".", "..", "~"}:
        return False
    return _ID_LETTERS.issuperset(owner + repository)
