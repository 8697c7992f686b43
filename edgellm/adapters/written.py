"""An adapter's folder that is made, whole or not there; its files in a folder that is."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from edgellm.adapters.forms import AdapterContent, ConfigFacts, in_form
from edgellm.adapters.stored import AdapterForm, Change
from edgellm.checkpoint.folder import ADAPTER_CONFIG
from edgellm.checkpoint.safetensors_file import write_tensors
from edgellm.converters.destination import destination_path, make_folder_of, require_space
from edgellm.converters.lora.adapter import MLX_FILE, PEFT_FILES
from edgellm.errors import ConversionError
from edgellm.files.atomic import sync_folder, write_file
from edgellm.files.file_lock import file_lock
from edgellm.files.names import beside
from edgellm.files.refusals import write_error

COMMAND = "edgellm adapter"
REPLACEABLE = frozenset({ADAPTER_CONFIG, MLX_FILE, *PEFT_FILES, "README.md"})
"""The files of a folder that may be replaced: it holds an adapter and nothing else."""

FILES: Mapping[AdapterForm, str] = {"peft": PEFT_FILES[0], "mlx-lm": MLX_FILE}

ANOTHER = "name another folder"


@contextmanager
def destination(out: str | Path, *, force: bool) -> Iterator[Path]:
    """Hold the place of a folder that is made in the ``with`` block, and give its path.

    Raises:
        ConversionError: it is taken, and not to be replaced or by something else than an adapter;
            another command is at work on it; or the disk refuses.
    """
    path = destination_path(out)
    make_folder_of(path)
    with file_lock(path, COMMAND):
        _require_free(path, force=force)
        yield path


def write_folder(
    path: Path,
    changes: Mapping[str, Change],
    *,
    form: AdapterForm,
    base: str | None,
    layers: int | None = None,
) -> int:
    """Write an adapter's folder, and return the bytes of its tensors.

    Args:
        path: from ``destination``; what is there is replaced.
        changes: by the paths of the matrices.
        form: whose.
        base: the model that they belong to; None: nobody says.
        layers: how many layers that has; None: nobody knows.

    Raises:
        UnsupportedModelError: the form has no place for a change.
        FormatError: a value is infinite or not a number.
        ConversionError: the disk is full or refuses; what was there is still there.
    """
    content = in_form(form, changes, ConfigFacts(base=base, layers=layers))
    require_space(path, content.nbytes)
    _put_in_place(path, partial(write_files, content=content))
    return content.nbytes


def write_files(folder: Path, content: AdapterContent) -> None:
    """Write an adapter's files to a folder that is there, each whole or not at all.

    Those of another form that are there go.

    Raises:
        FormatError: a value is infinite or not a number.
        ConversionError: the disk is full or refuses.
    """
    text = json.dumps(content.config, indent=2)
    write_file(folder / ADAPTER_CONFIG, [f"{text}\n".encode()])
    write_tensors(folder / FILES[content.form], content.tensors, metadata={"format": "pt"})
    for form, name in FILES.items():
        if form != content.form:
            (folder / name).unlink(missing_ok=True)


def _require_free(path: Path, *, force: bool) -> None:
    try:
        if not os.path.lexists(path):
            return
        if not force:
            raise ConversionError(
                f"{path} already exists", hint=f"{ANOTHER}, or replace it with --force"
            )
        if not path.is_dir():
            raise ConversionError(f"{path} is not a folder", hint=ANOTHER)
        others = sorted({entry.name for entry in path.iterdir()} - REPLACEABLE)
    except OSError as error:
        raise write_error(path, error) from error
    if others:
        raise ConversionError(
            f"{path} holds {others[0]}, which is no adapter's, and will not be replaced",
            hint=ANOTHER,
        )


def _put_in_place(path: Path, fill: Callable[[Path], None]) -> None:
    """Fill a new folder beside a path, and give it that name; an old one goes at the end."""
    token = secrets.token_hex(8)
    made, old = beside(path, f".{token}.new"), beside(path, f".{token}.old")
    try:
        made.mkdir()
        try:
            fill(made)
            sync_folder(made)
            if os.path.lexists(path):
                path.rename(old)
            try:
                made.rename(path)
            except OSError:
                if os.path.lexists(old):
                    old.rename(path)
                raise
            sync_folder(path.parent)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise write_error(path, error) from error
    with suppress(OSError):
        shutil.rmtree(old)
