"""The model folder: its file names, its index and its checksums.

Exactly the layout of Hugging Face and mlx-lm; our own folders have one file a layer, one for the
embedding and one for norm and head, so that a layer is one aligned sequential read.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgellm.checkpoint.safetensors_file import TensorInfo, read_header
from edgellm.errors import FormatError, ModelNotFoundError
from edgellm.files.atomic import FileRecord
from edgellm.files.bounded import require_regular_file
from edgellm.files.strict_json import quoted, read_json, write_json

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
INDEX = "model.safetensors.index.json"
CHECKSUMS = "edgellm.json"
MANIFEST = "edgellm-conversion.json"
"""In a folder whose conversion has not finished; a whole folder never has it."""

PART = "edgellm-part.json"
"""In a folder with some layers of a model alone, which a machine of a cluster computes."""

EMBEDDING_FILE = "model-embedding.safetensors"
HEAD_FILE = "model-head.safetensors"

LAYER_PREFIX = "model.layers."
LAYER_NAME = re.compile(r"model\.layers\.(\d{1,6})\.")
"""The beginning of the name of a layer's tensor, with the layer's index."""

DOWNLOAD_AGAIN = "download or convert the model again"
"""The hint of errors about files that are missing or damaged."""

ADAPTER_CONFIG = "adapter_config.json"
OTHER_FORMATS = frozenset({".bin", ".gguf", ".safetensors", ".pth"})
"""Endings of weights that ``convert`` reads."""

MAX_NAME_BYTES = 255
"""Bytes of a file's name; no filesystem takes more."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder's config, and where each tensor lies; no weight has been read."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    generation_config: dict[str, Any]


def layer_file(index: int) -> str:
    """Return the name of layer ``index``'s file; mlx-lm takes every ``model*.safetensors``."""
    return f"model-layer-{index:05d}.safetensors"


def open_folder(path: Path) -> ModelFolder:
    """Read a model folder's config and headers, and check every header.

    Raises:
        ModelNotFoundError: there is no such folder.
        FormatError: a file is missing, damaged or lies; or the folder was only half written.
        ReadError: a file cannot be read.
    """
    if not path.is_dir():
        raise ModelNotFoundError(f"there is no folder {path}", hint="check how it is written")
    if (path / MANIFEST).exists():
        raise FormatError(
            f"{path} is only half converted",
            hint="run the same `edgellm convert` command again: it continues where it stopped",
        )
    if (path / PART).exists():
        raise FormatError(
            f"{path} has a part of a model's layers",
            hint=f"a machine of a cluster computes it: edgellm cluster join {path}",
        )
    if not (path / CONFIG).exists():
        if _holds_other_formats(path) and not (path / ADAPTER_CONFIG).exists():
            raise FormatError(f"{path} has no {CONFIG}", hint=_convert_first(path))
        raise no_config(path)
    config = read_json(inside(path, CONFIG), finite=False)
    generation_config = {}
    if (path / GENERATION_CONFIG).exists():
        generation_config = read_json(inside(path, GENERATION_CONFIG))
    return ModelFolder(path, config, read_headers(weight_files(path)), generation_config)


def no_config(path: Path) -> FormatError:
    """Return the error for a folder that has no config, which may be an adapter."""
    if (path / ADAPTER_CONFIG).exists():
        return FormatError(
            f"{path} is an adapter, not a model",
            hint=f"merge it into its base: edgellm convert BASE FOLDER --adapter {path}",
        )
    return FormatError(
        f"{path} has no {CONFIG}", hint="name the folder that holds the model's files"
    )


def weight_files(
    path: Path, *, pattern: str = "model*.safetensors", index: str = INDEX
) -> list[Path]:
    """Return the files of a folder's weights: those its index names, else those of ``pattern``.

    Raises:
        FormatError: one is missing or would lie outside the folder, or there is none.
    """
    present = sorted(file.name for file in path.glob(pattern))
    names = present
    # beside a model.safetensors, variants of it may lie
    single = pattern.replace("*", "")
    if single in present:
        names = [single]
    if (path / index).exists():
        listed = _index_files(path, index)
        # Folders exist whose index was left over from another sharding: mlx-lm never looks at it,
        # transformers neither when there is a single model.safetensors.
        if not names or not set(present).isdisjoint(listed):
            names = listed
    if not names:
        hint = DOWNLOAD_AGAIN
        if _holds_other_formats(path):
            hint = _convert_first(path)
        raise FormatError(f"{path} has no {pattern}", hint=hint)
    for name in names:
        # model-00001-of-00003.safetensors
        shard = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})(\.\w+)", name)
        if shard and len(names) < int(shard[2]):
            raise FormatError(
                f"{path} holds {len(names)} of the {int(shard[2])} files of {shard[1]}",
                hint=DOWNLOAD_AGAIN,
            )
    return [inside(path, name) for name in names]


def _convert_first(path: Path) -> str:
    return f"convert the model first: edgellm convert {path} FOLDER"


def _holds_other_formats(path: Path) -> bool:
    return any(file.suffix in OTHER_FORMATS for file in path.iterdir())


def read_headers(files: Iterable[Path]) -> dict[str, TensorInfo]:
    """Return all tensors of several files.

    Raises:
        FormatError: a header is damaged, or two files hold a tensor of the same name.
        ReadError: a file cannot be read.
    """
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        for name, tensor in read_header(file)[0].items():
            if name in tensors:
                raise FormatError(
                    f"tensor {quoted(name)} lies in {tensors[name].file.name} and in {file.name}"
                )
            tensors[name] = tensor
    if not tensors:
        raise FormatError("the model's files hold no tensor", hint=DOWNLOAD_AGAIN)
    return tensors


def inside(path: Path, name: str) -> Path:
    """Return the file ``name`` of a folder, if it is a plain file that really lies there.

    A link may lead to another file of the folder or, as in the Hub's cache, from ``snapshots/X`` to
    ``blobs``. Where it leads elsewhere, to another disk, link and file must be this user's own, and
    a warning says where to: else a stranger's link could have a private file copied.

    Raises:
        FormatError: the name has a path in it, or the link leads to another user's file, or there
            is not such a regular file.
    """
    is_path = Path(name).name != name or "\\" in name or "\0" in name
    if is_path or len(name.encode()) > MAX_NAME_BYTES:
        raise FormatError(f"{path} names a file that is not its own: {quoted(name)}")
    file = path / name
    if not file.exists():
        raise FormatError(f"{path} lacks the file {quoted(name)}", hint=DOWNLOAD_AGAIN)
    require_regular_file(file)
    if leads_elsewhere(file):
        user = os.getuid()
        if {file.lstat().st_uid, file.stat().st_uid} != {user}:
            raise FormatError(
                f"{file} is a link to a file elsewhere, and one of the two is another user's",
                hint="put the file itself into the folder",
            )
        _say_links(path, file.resolve().parent)
    return file


def leads_elsewhere(file: Path) -> bool:
    """Return whether a file of a model folder is a link out of it, and not into the Hub's cache."""
    if not file.is_symlink():
        return False
    folder = file.parent.resolve()
    allowed = [folder]
    for place in (folder, folder.parent):  # a repository's files may lie in folders
        if place.parent.name == "snapshots":
            allowed.append(place.parent.parent / "blobs")
    return not any(file.resolve().is_relative_to(place) for place in allowed)


@cache
def _say_links(folder: Path, target: Path) -> None:
    """Warn, once for two folders, that files of the first are links into the second."""
    warnings.warn(
        f"files of {folder} are links to {target}, where they are read", UserWarning, stacklevel=3
    )


def write_index(path: Path, weight_map: Mapping[str, str], total_size: int) -> FileRecord:
    """Write the index: which file holds which tensor."""
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    return write_json(path / INDEX, index)


def write_checksums(path: Path, files: Iterable[FileRecord]) -> None:
    """Record size and SHA-256 of the folder's files, for ``edgellm verify``."""
    records = {file.name: {"size": file.size, "sha256": file.sha256} for file in files}
    write_json(path / CHECKSUMS, {"format": 1, "files": dict(sorted(records.items()))})


def read_checksums(path: Path) -> list[FileRecord]:
    """Return what ``write_checksums`` recorded.

    Raises:
        FormatError: the record is damaged, or there is none, as in folders made by others.
    """
    files = read_json(inside(path, CHECKSUMS)).get("files")
    if not isinstance(files, dict):
        raise FormatError(f"{path / CHECKSUMS} lists no files")
    records = []
    for name, claim in files.items():
        size, digest = None, None
        if isinstance(claim, dict):
            size, digest = claim.get("size"), claim.get("sha256")
        if type(size) is not int or not isinstance(digest, str):
            raise FormatError(f"{path / CHECKSUMS} has no size and sha256 for {quoted(name)}")
        records.append(FileRecord(name, size, digest))
    return records


def _index_files(path: Path, index: str) -> list[str]:
    weight_map = read_json(inside(path, index)).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{path / index} has no weight_map")
    if not all(isinstance(name, str) for name in weight_map.values()):
        raise FormatError(f"{path / index} names a file that is not text")
    return sorted(set(weight_map.values()))
