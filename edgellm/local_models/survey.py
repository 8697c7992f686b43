"""Models on this machine, looked into: size, bits, and whether they fit into memory now."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.converters.gguf_on_hub.cached_conversion import kept_conversions
from edgellm.diagnostics.facts import model_facts
from edgellm.errors import ConfigError, EdgeLLMError, MemoryBudgetError
from edgellm.hub.cached_files import cached_folder, cached_names, snapshot
from edgellm.hub.client import quiet
from edgellm.hub.gguf_files import gguf_models, model_names
from edgellm.hub.resolve import BUNDLED, bundled_names
from edgellm.local_models.names import is_model_folder
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.models.through_mlx_lm.checkpoint import read_any_checkpoint
from edgellm.settings import LoadSettings

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo

HUB, CONVERTED, BUNDLED_HERE, FOLDER = "Hub cache", "converted", "bundled", "folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A model on this machine.

    Attributes:
        name: what commands call it.
        place: ``bundled``, ``Hub cache``, ``converted`` (by us, of a GGUF file) or ``folder``.
        path: where it lies.
        nbytes: on disk.
        bits: bits of most weights; None where that is not known.
        fits: how it would be loaded now: ``in memory``, ``paged`` or ``too large``; None where it
            cannot be loaded as it is.
        pinned: the share of a paged model's layers that stays in memory.
        note: a sentence on what is missing or comes next; empty where nothing is.
    """

    name: str
    place: str
    path: Path
    nbytes: int
    bits: int | None = None
    fits: str | None = None
    pinned: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "name": self.name,
            "place": self.place,
            "path": str(self.path),
            "bytes": self.nbytes,
            "bits": self.bits,
            "fits": self.fits,
            "pinned": self.pinned,
            "note": self.note,
        }


def local_models(folders: Sequence[Path] = ()) -> Iterator[LocalModel]:
    """Yield the models on this machine, each looked into when it is asked for.

    Args:
        folders: model folders, or folders of them; without any, bundled models and caches.

    Raises:
        ConfigError: a folder is none.
    """
    for folder in folders:
        yield from _in_folder(folder)
    if folders:
        return
    for name in bundled_names():
        yield _model(name, BUNDLED_HERE, BUNDLED / name)
    for repository in cached_repositories():
        yield from _in_repository(repository)
    for name, folder in kept_conversions():
        yield _model(name, CONVERTED, folder)


def cached_repositories() -> list[CachedRepoInfo]:
    """Return the model repositories that the Hub's library has in its cache, by name."""
    from huggingface_hub import errors, scan_cache_dir

    try:
        with quiet():
            repositories = scan_cache_dir().repos
    except errors.CacheNotFound:
        return []
    models = [item for item in repositories if item.repo_type == "model"]
    return sorted(models, key=lambda item: item.repo_id)


def _in_folder(folder: Path) -> Iterator[LocalModel]:
    if not folder.is_dir():
        raise ConfigError(
            f"there is no folder {folder}", hint="name a model folder, or a folder of them"
        )
    if is_model_folder(folder):
        yield _model(str(folder), FOLDER, folder)
        return
    for inner in sorted(folder.iterdir()):
        if is_model_folder(inner):
            yield _model(str(inner), FOLDER, inner)


def _in_repository(repository: CachedRepoInfo) -> Iterator[LocalModel]:
    name = repository.repo_id
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are for who runs the model
        folder = cached_folder(name, None)
    if folder is not None:
        yield _model(name, HUB, folder)
        return
    newest = snapshot(name)
    files = cached_names(newest) if newest is not None else []
    models = gguf_models(files)
    for first, named in model_names(name, models).items():
        assert newest is not None
        yield LocalModel(
            name=named,
            place=HUB,
            path=newest / first,
            nbytes=sum((newest / file).stat().st_size for file in models[first]),
            note="a GGUF file, which is converted once when it is used",
        )
    if not models:
        note = f"incomplete, or in a format to convert: edgellm pull {name}"
        yield LocalModel(
            name=name,
            place=HUB,
            path=newest or repository.repo_path,
            nbytes=repository.size_on_disk,
            note=note,
        )


def _model(name: str, place: str, folder: Path) -> LocalModel:
    """Look into a model folder; what cannot be loaded has a note that says why."""
    nbytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    try:
        checkpoint = read_any_checkpoint(folder)
        facts = model_facts(checkpoint, None)
        bits = _bits(facts)
        try:
            plan = plan_for(checkpoint, LoadSettings())
        except MemoryBudgetError as error:
            return LocalModel(
                name=name,
                place=place,
                path=folder,
                nbytes=nbytes,
                bits=bits,
                fits="too large",
                note=error.message,
            )
    except EdgeLLMError as error:
        return LocalModel(name=name, place=place, path=folder, nbytes=nbytes, note=error.message)
    pinned = None
    fits = "in memory"
    if not plan.resident:
        fits = "paged"
        pinned = len(plan.pinned) / (len(plan.pinned) + len(plan.streamed))
    return LocalModel(
        name=name, place=place, path=folder, nbytes=nbytes, bits=bits, fits=fits, pinned=pinned
    )


def _bits(facts: dict[str, Any]) -> int:
    """Return the bits that most weights are stored in."""
    if "bits" in facts:
        return int(facts["bits"])
    if facts["quantization"]:
        return int(facts["quantization"]["bits"])
    if facts["dtype"] == "F32":
        return 32
    return 16
