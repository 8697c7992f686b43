"""The name of a model becomes a folder: a path, a bundled model, or a Hub repository."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from edgellm.errors import ModelNotFoundError

BUNDLED = Path(__file__).parents[1] / "bundled"


def bundled_names() -> list[str]:
    """The models that come with the package."""
    return (
        sorted(path.name for path in BUNDLED.iterdir() if path.is_dir()) if BUNDLED.is_dir() else []
    )


def locate(model: str | Path) -> Path:
    """Return the folder of a model: an existing folder, a bundled name, or a Hub id (downloaded once, with its progress bar).

    Raises:
        ModelNotFoundError: nothing has this name.
        DownloadError: the Hub cannot be reached, or refuses.
    """
    path = Path(model).expanduser()
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
    close = get_close_matches(name, bundled_names(), n=1)
    hint = (
        f"did you mean {close[0]}?"
        if close
        else "name a folder, a Hub id such as mlx-community/Llama-3.2-1B-Instruct-4bit, or stories"
    )
    raise ModelNotFoundError(f"there is no model {name!r}", hint=hint)


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a Hub repository, ``owner/name``."""
    owner, slash, repository = name.partition("/")
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    return (
        bool(slash and owner and repository)
        and owner not in {".", "..", "~"}
        and set(owner + repository) <= allowed
    )
