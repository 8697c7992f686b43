"""One sequence in a file: its tokens, and each layer's keys and values as the cache keeps them (safetensors)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.safetensors_file import TensorData, TensorInfo, read_header, write_tensors
from edgellm.errors import FormatError
from edgellm.kv_cache.cache import Cache, KVCache

VERSION = "1"
FORMAT = "edgellm prompt cache"

_CODES: Mapping[mx.Dtype, str] = {
    mx.float32: "F32",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint32: "U32",
}
_WORDS: Mapping[mx.Dtype, mx.Dtype] = {
    mx.float32: mx.uint32,
    mx.float16: mx.uint16,
    mx.bfloat16: mx.uint16,
    mx.uint32: mx.uint32,
}
"""NumPy has no bfloat16, and bytes need no meaning."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file, and how many tokens its sequence has in common with a prompt."""

    path: Path
    common: int
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]


_Layer = tuple[KVCache, int, list[TensorInfo]]
"""A layer's cache, the position of the first token that a file has for it, and the file's tensors."""


def match_prefix(path: Path, key: str, tokens: Sequence[int]) -> Found:
    """How much of a file's sequence ``tokens`` begin with. Raises FormatError, ReadError, OSError."""
    tensors, metadata = read_header(path)
    if (metadata.get("format"), metadata.get("version"), metadata.get("key")) != (
        FORMAT,
        VERSION,
        key,
    ):
        raise FormatError("it is of another kind, version or model")
    info = tensors.get("tokens")
    if (
        info is None
        or info.dtype != "I32"
        or len(info.shape) != 1
        or info.offset != min(t.offset for t in tensors.values())
    ):
        raise FormatError("it has no tokens")
    with path.open("rb") as file:
        file.seek(info.offset)
        held = np.frombuffer(file.read(info.nbytes), np.int32)
    length = min(len(held), len(tokens))
    differ = np.flatnonzero(held[:length] != np.array(tokens[:length], np.int32))
    return Found(path, int(differ[0]) if len(differ) else length, tensors, metadata)


def layers_of(found: Found, caches: Sequence[Cache]) -> list[_Layer]:
    """What a file has for each of these caches. Raises FormatError where it is not for caches like them."""
    infos = iter(sorted(found.tensors.values(), key=lambda info: info.offset))
    total = next(infos).shape[0]
    bases = [int(base) for base in found.metadata.get("bases", "").split() if base.isdecimal()]
    if len(bases) != len(caches):
        raise FormatError("it has another number of layers")
    layers = []
    for number, (cache, base) in enumerate(zip(caches, bases, strict=True)):
        if not isinstance(cache, KVCache):
            raise FormatError(f"it cannot fill a {type(cache).__name__}")
        own = list(islice(infos, len(cache.kept.names)))
        expected = [
            (
                f"layers.{number}.{name}",
                _CODES[empty.dtype],
                (*empty.shape[:2], total - base, empty.shape[3]),
            )
            for name, empty in zip(cache.kept.names, cache.kept.empty(0), strict=True)
        ]
        if [(info.name, info.dtype, info.shape) for info in own] != expected:
            raise FormatError(f"its layer {number} is of another form")
        layers.append((cache, base, own))
    if next(infos, None) is not None:
        raise FormatError("it has more than its layers")
    return layers


def goes_on(cache: KVCache, base: int, common: int) -> bool:
    """Whether a cache can go on after ``common`` tokens of which it gets those from ``base`` on."""
    return base <= (0 if cache.window is None else max(0, common + 1 - cache.window))


def fill(found: Found, layers: Sequence[_Layer], length: int) -> None:
    """Fill the caches with the first ``length`` tokens. Raises FormatError where the bytes are not those that were written."""
    digest = hashlib.sha256()
    tokens = found.tensors["tokens"]
    with found.path.open("rb", buffering=0) as file:
        file.seek(tokens.offset)
        digest.update(_bytes(file, tokens))
        for cache, base, infos in layers:
            arrays = []
            for info, empty in zip(infos, cache.kept.empty(0), strict=True):
                data = _bytes(file, info)
                digest.update(data)
                words = data.view(np.uint16 if empty.dtype.size == 2 else np.uint32).reshape(
                    info.shape
                )
                arrays.append(mx.array(words[:, :, : length - base]).view(empty.dtype))
            cache.replace(arrays, base)
            mx.eval(cache.arrays)
    if digest.hexdigest() != found.metadata.get("sha256"):
        raise FormatError("its bytes are not those that were written")


def _bytes(file: IO[bytes], info: TensorInfo) -> npt.NDArray[np.uint8]:
    data = np.fromfile(file, np.uint8, info.nbytes)
    if len(data) != info.nbytes:
        raise FormatError("it was cut short while it was read")
    return data


def tensors_of(tokens: Sequence[int], caches: Sequence[KVCache]) -> list[TensorData]:
    """A sequence and what caches hold of it, to be written in this order."""
    tensors = [TensorData("tokens", "I32", (len(tokens),), np.array(tokens, np.int32))]
    for layer, cache in enumerate(caches):
        for name, array in zip(cache.kept.names, cache.part(cache.base, cache.offset), strict=True):
            shape = (
                int(array.shape[0]),
                int(array.shape[1]),
                int(array.shape[2]),
                int(array.shape[3]),
            )
            tensors.append(
                TensorData(f"layers.{layer}.{name}", _CODES[array.dtype], shape, _Words(array))
            )
    return tensors


class _Words:
    """An array's bytes, made contiguous each time that they are asked for: one layer at a time, and never all of them."""

    def __init__(self, array: mx.array) -> None:
        self._array = array

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        yield np.ascontiguousarray(
            np.array(self._array.view(_WORDS[self._array.dtype]), copy=False)
        )


def _digest(pieces: Any) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        for part in piece if isinstance(piece, _Words) else [piece]:
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def write_sequence(
    path: Path, tensors: Sequence[TensorData], caches: Sequence[KVCache], *, key: str
) -> None:
    """Write a sequence, whole or not at all. Raises ConversionError."""
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "key": key,
        "bases": " ".join(str(cache.base) for cache in caches),
        "sha256": _digest(tensor.data for tensor in tensors),
    }
    write_tensors(path, tensors, metadata=metadata)
