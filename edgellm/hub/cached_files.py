"""The Hub's cache on this machine, whichever program has fetched what is in it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgellm.checkpoint.folder import CONFIG, GENERATION_CONFIG, INDEX, weight_files
from edgellm.errors import EdgeLLMError
from edgellm.hub.client import quiet

WEIGHTS = "model*.safetensors"
TORCH_WEIGHTS = "pytorch_model*.bin"
TORCH_INDEX = "pytorch_model.bin.index.json"
META_WEIGHTS = "consolidated*.pth"
MISTRAL_WEIGHTS = "consolidated*.safetensors"
LITGPT_WEIGHTS = "lit_model.pth"

OWN_CONFIGS: Mapping[str, tuple[str, ...]] = {
    META_WEIGHTS: ("params.json",),
    MISTRAL_WEIGHTS: ("params.json",),
    LITGPT_WEIGHTS: ("model_config.yaml", "lit_config.json"),
}
"""Configs of formats that are not Hugging Face's; one of them has to be there."""

TOKENIZERS = ("tokenizer.json", "tokenizer.model*", "vocab.json", "tekken.json")
"""Patterns of files; one such file is enough to make a tokenizer."""

SETTINGS = (GENERATION_CONFIG, "tokenizer_config.json", "chat_template.jinja")
"""Files without which a model runs, but may talk or end otherwise."""


def cached_folder(
    repository: str, revision: str | None, kinds: Sequence[str] = (WEIGHTS,)
) -> Path | None:
    """Return the folder of a repository that is whole in the cache, without asking the Hub.

    Whole is one that has its config, a tokenizer, and all weights of one of the ``kinds``; a
    license or a model card is not needed. An older one is taken, with a warning, where no revision
    is asked for and of the newest only a part is there.
    """
    folder = snapshot(repository, revision)
    if folder is not None and _is_whole(repository, revision, folder, kinds):
        if snapshot(repository, revision, SETTINGS) is None:
            warnings.warn(
                f"the cache lacks small files of {repository}, which may hold its chat template or "
                "end tokens; they are downloaded when the Hub can be reached",
                stacklevel=2,
            )
        return folder
    if revision is not None:
        return None
    for older in _snapshots(repository):
        if older != folder and _is_whole(repository, older.name, older, kinds):
            warnings.warn(
                f"the newest {repository} is incomplete in the cache: using an older one, "
                f"{older.name[:8]}",
                stacklevel=2,
            )
            return older
    return None


def snapshot(
    repository: str, revision: str | None = None, patterns: Sequence[str] = ()
) -> Path | None:
    """Return the cache's folder of a revision; None where there is none.

    Also None where a file of one of the ``patterns`` is known to be missing: the library keeps a
    list of a repository's files, if it was the one to fetch it.
    """
    from huggingface_hub import errors, snapshot_download

    try:
        with quiet():
            found = snapshot_download(
                repository,
                revision=revision,
                local_files_only=True,
                allow_patterns=list(patterns),
            )
    except (errors.LocalEntryNotFoundError, errors.HFValidationError, OSError):
        return None
    return Path(found)


def cached_names(folder: Path) -> list[str]:
    """Return the paths of all files in a folder of the cache."""
    return [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]


def _is_whole(repository: str, revision: str | None, folder: Path, kinds: Sequence[str]) -> bool:
    if not any(any(folder.glob(name)) for name in TOKENIZERS):
        return False
    for kind in kinds:
        if any(folder.glob(kind)):
            return _has_weights(repository, revision, folder, kind)
    return False


def _has_weights(repository: str, revision: str | None, folder: Path, kind: str) -> bool:
    """Return whether config and weights are all there; at least one file is."""
    if kind in OWN_CONFIGS:
        is_known = snapshot(repository, revision, [kind]) is not None
        return is_known and any((folder / name).is_file() for name in OWN_CONFIGS[kind])
    index = {WEIGHTS: INDEX, TORCH_WEIGHTS: TORCH_INDEX}[kind]
    if not (folder / CONFIG).is_file():
        return False
    # files of any names are one model's if an index says so, which must not be missing
    is_single = (folder / kind.replace("*", "")).is_file()
    if not is_single and snapshot(repository, revision, [index]) is None:
        return False
    try:
        weight_files(folder, pattern=kind, index=index)
    except EdgeLLMError:
        return False
    return True


def _snapshots(repository: str) -> Iterator[Path]:
    """Yield the folders of all of a repository's revisions in the cache, the newest first.

    The library's own list of its cache leaves a repository out whose reference leads nowhere.
    """
    from huggingface_hub import constants

    named = f"models--{repository.replace('/', constants.REPO_ID_SEPARATOR)}"
    try:
        folders = list((Path(constants.HF_HUB_CACHE) / named / "snapshots").iterdir())
        yield from sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)
    except OSError:
        return
