"""Model repositories on the Hugging Face Hub, downloaded once into its cache."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from edgellm.errors import EdgeLLMError, ModelNotFoundError
from edgellm.hub.cached_files import (
    LITGPT_WEIGHTS,
    META_WEIGHTS,
    MISTRAL_WEIGHTS,
    TORCH_WEIGHTS,
    WEIGHTS,
    cached_folder,
    cached_names,
    snapshot,
)
from edgellm.hub.client import fetch, list_repository, renamed_error
from edgellm.hub.gguf_files import gguf_models, pick_model, say_models
from edgellm.hub.names import HubName

# Patterns of what is fetched from a repository: data, never a program.
FILES = (
    "*.json",
    "*.jinja",
    "model_config.yaml",
    "tokenizer.model*",
    "merges.txt",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)


def download(repository: str, *, revision: str | None = None, torch_files: bool = False) -> Path:
    """Return the folder of a Hub repository, fetched if it is not in the cache.

    Where the Hub cannot be asked, what any program has fetched will do if it is whole: the config,
    a tokenizer, and all weights. ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE``
    are huggingface-hub's own, and respected.

    Args:
        repository: ``owner/name``.
        revision: a branch, tag or commit; None: the main branch.
        torch_files: whether PyTorch's weight files will do where there is no safetensors, Hugging
            Face's, Meta's or LitGPT's, or Mistral's own.

    Raises:
        ModelNotFoundError: the repository or revision does not exist, or holds no weights of a kind
            we read.
        DownloadError: it is gated, the Hub cannot be reached or refuses, or the disk is full.
    """
    kinds = [WEIGHTS]
    if torch_files:
        kinds += [TORCH_WEIGHTS, META_WEIGHTS, MISTRAL_WEIGHTS, LITGPT_WEIGHTS]
    try:
        listing = list_repository(repository, revision)
    except Exception as error:
        folder = _of_cache(error, repository, revision, kinds)
        if folder is None:
            raise _not_here(error, repository, revision) from error
        return folder
    for kind in kinds:
        if any(fnmatch(name, kind) for name in listing.names):
            return fetch(repository, revision, [*FILES, kind])
    models = gguf_models(listing.names)
    if models:
        raise ModelNotFoundError(
            f"{repository} on the Hub holds GGUF files", hint=say_models(repository, models)
        )
    if not torch_files:
        raise ModelNotFoundError(
            f"{repository} on the Hub holds no {WEIGHTS}",
            hint=f"convert it first: edgellm convert {repository} FOLDER",
        )
    raise ModelNotFoundError(
        f"{repository} on the Hub holds neither {' nor '.join(kinds)}",
        hint="name the repository that it was made from; a GGUF file is downloaded by itself first",
    )


@dataclass(frozen=True, slots=True)
class GgufPlace:
    """A GGUF model in a repository.

    Attributes:
        repository: ``owner/name``.
        files: its files' paths, the first one first.
        commit: the commit of the repository now; None: the Hub cannot be asked.
        folder: the cache's, if it has all the files.
        error: why the Hub cannot be asked.
    """

    repository: str
    files: tuple[str, ...]
    commit: str | None
    folder: Path | None
    error: Exception | None = None

    def fetched(self) -> Path:
        """Return the first file, fetched with the others if they are not in the cache.

        Raises:
            ModelNotFoundError, DownloadError: as ``download``.
        """
        folder = self.folder
        if self.error is None:
            folder = fetch(self.repository, None, [glob.escape(file) for file in self.files])
        elif folder is None:
            raise renamed_error(self.error, self.repository) from self.error
        return folder / self.files[0]


def find_gguf(name: HubName, known: tuple[str, ...] = ()) -> GgufPlace:
    """Return where the GGUF model is that a name means; nothing is fetched.

    Args:
        name: with a file or a quantization.
        known: files that the repository is known to have had, for when the Hub cannot be asked.

    Raises:
        ModelNotFoundError: there is no such repository or model.
        DownloadError: the Hub cannot be asked, and nothing is known of the repository.
    """
    repository, commit, failure = name.repository, None, None
    folder = snapshot(repository)
    here = [] if folder is None else cached_names(folder)
    try:
        listing = list_repository(repository)
    except Exception as error:
        failure = error
        try:
            files = tuple(pick_model(name, {*here, *known}))
        except ModelNotFoundError:  # of what is here; the Hub may have it
            raise _not_found(error, name) from error
    else:
        commit = listing.commit
        files = tuple(pick_model(name, listing.names))
    if not set(files) <= set(here):
        folder = None
    return GgufPlace(repository, files, commit, folder, failure)


def _not_found(error: Exception, name: HubName) -> EdgeLLMError:
    """Return why a GGUF file cannot be had; its name may have been meant for a path."""
    renamed = renamed_error(error, name.repository)
    if name.file is None:
        return renamed
    return type(renamed)(f"there is no file {name.text} here, and {renamed}", hint=renamed.hint)


def _of_cache(
    error: Exception, repository: str, revision: str | None, kinds: list[str]
) -> Path | None:
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError | errors.HFValidationError):
        return None
    return cached_folder(repository, revision, kinds)


def _not_here(error: Exception, repository: str, revision: str | None) -> EdgeLLMError:
    here = "not"
    if snapshot(repository, revision) is not None:
        here = "only in part"
    return renamed_error(error, repository, revision, here=here)
