"""The models that ``edgellm serve`` is given, by the names that requests will have for them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from edgellm.errors import ConfigError
from edgellm.local_models.names import is_model_folder
from edgellm.setting_values import shown

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
KEEP_ALIVE_SECONDS = 300.0


def find_models(model: str, named: Iterable[str]) -> dict[str, str]:
    """Return folders, Hub ids or bundled names by the names of the models.

    Args:
        model: one of them, or a folder of model folders; empty: only those that are named.
        named: each ``NAME=MODEL``.

    Raises:
        ConfigError: there is none, or two have one name.
    """
    found: dict[str, str] = {}
    folder = Path(model).expanduser()
    if model and folder.is_dir() and not is_model_folder(folder):
        inner = sorted(path for path in folder.iterdir() if is_model_folder(path))
        if inner:
            found = {path.name: str(path) for path in inner}
    if model and not found:
        found = {_name_of(model): model}
    for given in named:
        name, separator, source = given.partition("=")
        if not separator or not name or not source:
            raise ConfigError(
                f"--model {shown(given)} has no name",
                hint="give both: --model NAME=FOLDER",
            )
        if name in found:
            raise ConfigError(
                f"two models are called {shown(name)}", hint="give one of them another name"
            )
        found[name] = source
    return found


def parse_keep_alive(text: str | None, *, several: bool) -> float | None:
    """Return seconds; None for ever. Raises ConfigError.

    Args:
        text: such as ``5m``, ``90s``, ``0`` or ``-1``; None: what suits the number of models.
        several: whether there are several.
    """
    if text is None:
        if several:
            return KEEP_ALIVE_SECONDS
        return None
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smh]?)", text.strip())
    if match:
        return float(match.group(1)) * UNITS[match.group(2)]
    if re.fullmatch(r"-\d{1,9}[smh]?", text.strip()):
        return None
    raise ConfigError(
        f"--keep-alive is {shown(text)}, which is no time",
        hint="give 5m, 90s, 2h, 0, or -1 for ever",
    )


def _name_of(model: str) -> str:
    """Return the name of a model: of a folder its last part, of others all of it."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve().name
    return model
