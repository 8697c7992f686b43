"""The parts of a model that may be deleted: what the Hub's library or this program has made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgellm.converters.gguf_on_hub.cached_conversion import forget, kept_conversions
from edgellm.errors import ConfigError, ConversionError, ModelNotFoundError
from edgellm.files.given_path import given_path
from edgellm.files.try_lock import is_in_use
from edgellm.hub.client import quiet
from edgellm.hub.names import HubName, parse_hub_name
from edgellm.hub.resolve import bundled_names
from edgellm.local_models.survey import CONVERTED, HUB, cached_repositories


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Something of a model that can be deleted.

    Attributes:
        name: the model's.
        place: ``Hub cache`` or ``converted``.
        folder: that holds it.
        nbytes: that are free afterwards.
        run: deletes it. Raises ConversionError.
    """

    name: str
    place: str
    folder: Path
    nbytes: int
    run: Callable[[], None]


def removals(model: str) -> list[Removal]:
    """Return all that can be deleted of a model; nothing is deleted yet.

    Raises:
        ConfigError: the model is bundled, a person's own folder, a link, or in use.
        ModelNotFoundError: nothing of it is here.
    """
    if model in bundled_names():
        raise ConfigError(
            f"{model} comes with edgellm and cannot be removed",
            hint="edgellm list shows what can be removed",
        )
    if given_path(model).exists():
        raise ConfigError(
            f"{model} is not from the Hub's cache: edgellm did not download it",
            hint="delete it like any other folder; edgellm list shows what can be removed",
        )
    name = parse_hub_name(model)
    found = [] if name is None else [*_of_the_hub(name), *_conversions(name)]
    for item in found:
        _require_free(item)
    if not found:
        raise ModelNotFoundError(
            f"{model} is not on this machine", hint="edgellm list shows the models that are"
        )
    return found


def _require_free(item: Removal) -> None:
    """Raise ConfigError where a process has the model open, or a link leads to another place."""
    if item.folder.is_symlink():
        raise ConfigError(
            f"{item.folder} is a link, to {item.folder.resolve()}",
            hint="delete the link, and what it leads to, yourself",
        )
    if any(map(is_in_use, (item.folder, *item.folder.glob("snapshots/*")))):
        raise ConfigError(
            f"{item.name} is in use by a program", hint="end that program, and try again"
        )


def _of_the_hub(name: HubName) -> list[Removal]:
    """Return a repository's files; a name of one GGUF model means its conversion alone."""
    from huggingface_hub import scan_cache_dir

    if name.is_gguf:
        return []
    found = []
    for repository in cached_repositories():
        if repository.repo_id == name.repository:
            with quiet():
                # copies of a repository share its commits: of this one alone they are deleted
                cache = replace(scan_cache_dir(), repos=frozenset({repository}))
                strategy = cache.delete_revisions(
                    *(revision.commit_hash for revision in repository.revisions)
                )
            nbytes = strategy.expected_freed_size
            found.append(
                Removal(
                    name=name.repository,
                    place=HUB,
                    folder=repository.repo_path,
                    nbytes=nbytes,
                    run=partial(_delete, repository.repo_path, strategy.execute),
                )
            )
    return found


def _conversions(name: HubName) -> list[Removal]:
    found = []
    for converted, folder in kept_conversions():
        kept = parse_hub_name(converted)
        same = converted == name.text or not name.is_gguf
        if kept is not None and kept.repository == name.repository and same:
            found.append(_conversion(converted, folder))
    return found


def _conversion(name: str, folder: Path) -> Removal:
    nbytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Removal(
        name=name, place=CONVERTED, folder=folder, nbytes=nbytes, run=lambda: forget(folder)
    )


def _delete(folder: Path, execute: Callable[[], None]) -> None:
    """Let the Hub's library delete a repository. Raises ConversionError where it stays."""
    with quiet():
        execute()
    if folder.exists():
        raise ConversionError(
            f"{folder} cannot be deleted", hint="look at who owns it and what may be written there"
        )
