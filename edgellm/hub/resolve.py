"""A model's name becomes its folder: a path, a bundled model, or a Hub repository."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from edgellm.errors import ModelNotFoundError
from edgellm.files.given_path import given_path
from edgellm.hub.names import HubName, parse_hub_name

BUNDLED = Path(__file__).parents[1] / "bundled"

CONVERTER = "edgellm.converters.gguf_on_hub.cached_conversion:converted"
"""What makes a folder of a GGUF file. It stands above, and is imported when it is needed."""


def bundled_names() -> list[str]:
    """Return the names of the models that come with the package."""
    if not BUNDLED.is_dir():
        return []
    return sorted(path.name for path in BUNDLED.iterdir() if path.is_dir())


def locate(model: str | Path, *, converting: Callable[[Any], None] | None = None) -> Path:
    """Return the folder of a model; a Hub repository is downloaded once, with a progress bar.

    A GGUF file on the Hub is also converted once, into our cache.

    Args:
        model: an existing folder, a bundled name, a Hub id, or a GGUF file on the Hub
            (``owner/name:Q4_K_M``, ``owner/name/FILE.gguf``).
        converting: called with the steps of a conversion.

    Raises:
        ModelNotFoundError: nothing has this name.
        ConfigError: it cannot be a path.
        DownloadError: the Hub cannot be reached, or refuses.
        FormatError, UnsupportedModelError, ConversionError: as ``convert``.
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
    hub_name = parse_hub_name(name)
    if hub_name is not None:
        return _of_the_hub(hub_name, converting)
    hint = (
        "name a folder, a Hub id such as mlx-community/Llama-3.2-1B-Instruct-4bit, or stories; "
        "edgellm list shows what is here"
    )
    close = get_close_matches(name, bundled_names(), n=1)
    if close:
        hint = f"did you mean {close[0]}?"
    raise ModelNotFoundError(f"there is no model {name!r}", hint=hint)


def is_here(model: str | Path) -> bool:
    """Return whether ``locate`` finds a model on this machine; of the Hub, only what is whole."""
    name = str(model)
    if given_path(model).exists() or name in bundled_names():
        return True
    hub_name = parse_hub_name(name)
    if hub_name is None or hub_name.is_gguf:
        return hub_name is not None  # a conversion of ours, which locate finds or makes
    from edgellm.hub.cached_files import cached_folder

    return cached_folder(hub_name.repository, None) is not None


def _of_the_hub(name: HubName, converting: Callable[[Any], None] | None) -> Path:
    if not name.is_gguf:
        from edgellm.hub.download import download

        return download(name.repository)
    module, _, function = CONVERTER.partition(":")
    convert: Callable[..., Path] = getattr(import_module(module), function)
    return convert(name, converting)
