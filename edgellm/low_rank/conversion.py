"""An adapter in another form: PEFT's, mlx-lm's, or llama.cpp's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgellm.adapters.model_matrices import ModelMatrices
from edgellm.adapters.stored import StoredAdapter, open_stored, require_products_alone
from edgellm.adapters.written import COMMAND, destination, write_folder
from edgellm.checkpoint.folder import CONFIG
from edgellm.converters.destination import destination_path, make_folder_of
from edgellm.converters.gguf_export.writer import require_free
from edgellm.errors import ConfigError
from edgellm.files.file_lock import file_lock
from edgellm.low_rank.gguf_form import write_gguf_adapter

OutForm = Literal["peft", "mlx-lm", "gguf"]


@dataclass(frozen=True, slots=True)
class ConvertedAdapter:
    """An adapter that was made.

    Attributes:
        path: its folder or file.
        form: whose.
        changes: how many matrices it changes.
        nbytes: of its tensors, or of the file.
    """

    path: Path
    form: OutForm
    changes: int
    nbytes: int

    def facts(self) -> dict[str, Any]:
        """Return all of it for a JSON document."""
        return {
            "path": str(self.path),
            "format": self.form,
            "changes": self.changes,
            "bytes": self.nbytes,
        }


def convert_adapter(
    folder: str | Path,
    out: str | Path,
    *,
    form: OutForm,
    base: str | None = None,
    force: bool = False,
) -> ConvertedAdapter:
    """Write an adapter in another form; numbers keep their type and value where that has room.

    Args:
        folder: of PEFT's or mlx-lm's.
        out: the folder to be made; for llama.cpp the file.
        form: whose.
        base: the model that it belongs to; None: what its config names, if that is here.
        force: replace what is there.

    Raises:
        ConfigError: it is in this form already, or llama.cpp's form needs a base.
        ModelNotFoundError, FormatError, ReadError: adapter or base are not there or damaged.
        UnsupportedModelError: the form has no place for a change.
        ConversionError: the destination is taken, there is no space, or the disk refuses.
    """
    stored = open_stored(folder)
    require_products_alone(stored, f"be written for {form}")
    count = len(stored.adapter.changes)
    if form == "gguf":
        return _as_gguf(stored, destination_path(out), base, force=force)
    if form == stored.form:
        raise ConfigError(
            f"{stored.path} is in the form of {form} already", hint="name the other form"
        )
    layers = None
    if base is not None:
        layers = ModelMatrices(base).recipe.config["num_hidden_layers"]
    with destination(out, force=force) as path:
        if path == stored.path.resolve():
            raise ConfigError(
                f"{out} is the adapter itself", hint="name another folder for the other form"
            )
        changes = {name: stored.change(name) for name in stored.adapter.changes}
        nbytes = write_folder(path, changes, form=form, base=base or stored.base, layers=layers)
    return ConvertedAdapter(path, form, count, nbytes)


def _as_gguf(
    stored: StoredAdapter, path: Path, base: str | None, *, force: bool
) -> ConvertedAdapter:
    named = base or stored.base
    if named is None or (base is None and not (Path(named) / CONFIG).exists()):
        raise ConfigError(
            "llama.cpp's names of matrices depend on the model, and the adapter's base "
            f"({named or 'which it does not name'}) is not here",
            hint="name it: --base MODEL",
        )
    make_folder_of(path)
    with file_lock(path, COMMAND):
        require_free(path, replace=force)
        nbytes = write_gguf_adapter(stored, ModelMatrices(named), path, force=force)
    return ConvertedAdapter(path, "gguf", len(stored.adapter.changes), nbytes)
