"""One sequence in a safetensors file: its tokens, and each layer's keys and values.

The tensors, in the order of their bytes: ``tokens`` (S,), then for each layer the arrays of its KV
format, ``layers.N.keys`` (1, G, S - base, D) and so on, of the tokens from position ``base`` on.
"""

# S tokens of the sequence, G key/value heads, D head size

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.safetensors_file import TensorData, TensorInfo, read_header, write_tensors
from edgellm.errors import FormatError
from edgellm.kv_cache.cache import Cache, KVCache

VERSION = "1"
FORMAT = "edgellm prompt cache"

_DTYPE_CODES: Mapping[mx.Dtype, str] = {
    mx.float32: "F32",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint32: "U32",
}
"""The codes of safetensors."""

_UINT_DTYPES: Mapping[int, tuple[mx.Dtype, type[np.uint16 | np.uint32]]] = {
    2: (mx.uint16, np.uint16),
    4: (mx.uint32, np.uint32),
}
"""Types that carry any value of this many bytes between MLX and NumPy, which has no bfloat16."""


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """A file, and how many tokens its sequence has in common with a prompt."""

    path: Path
    common: int
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]

    @property
    def length(self) -> int:
        """Tokens of the file's sequence."""
        return self.tensors["tokens"].shape[0]


@dataclass(frozen=True, slots=True)
class LayerMatch:
    """A layer's cache, and what a file has for it.

    Attributes:
        cache: to be filled.
        base: position of the first token that the file has keys and values of.
        tensors: the arrays of the cache's KV format in the file.
    """

    cache: KVCache
    base: int
    tensors: Sequence[TensorInfo]

    def can_continue(self, common: int) -> bool:
        """Whether all that the cache looks at after ``common`` tokens is in the file."""
        oldest = 0
        if self.cache.window is not None:
            oldest = max(0, common + 1 - self.cache.window)
        return self.base <= oldest


def match_prefix(path: Path, key: str, tokens: Sequence[int]) -> PrefixMatch:
    """Compare a file's tokens with ``tokens``.

    Raises:
        FormatError: the file is damaged, or not of the model that ``key`` names.
        ReadError, OSError: it cannot be read.
    """
    tensors, metadata = read_header(path)
    origin = (metadata.get("format"), metadata.get("version"), metadata.get("key"))
    if origin != (FORMAT, VERSION, key):
        raise FormatError("it is of another kind, version or model")
    info = tensors.get("tokens")
    if info is None or info.dtype != "I32" or len(info.shape) != 1:
        raise FormatError("it has no tokens")
    if info.offset != min(tensor.offset for tensor in tensors.values()):
        raise FormatError("it has no tokens at its beginning")
    with path.open("rb") as file:
        file.seek(info.offset)
        stored = np.frombuffer(file.read(info.nbytes), np.int32)
    length = min(len(stored), len(tokens))
    differing = np.flatnonzero(stored[:length] != np.array(tokens[:length], np.int32))
    common = int(differing[0]) if len(differing) else length
    return PrefixMatch(path, common, tensors, metadata)


def match_layers(match: PrefixMatch, caches: Sequence[Cache]) -> list[LayerMatch]:
    """Return what a file has for each cache. Raises FormatError where it is not for such caches."""
    stored = iter(sorted(match.tensors.values(), key=lambda info: info.offset))
    next(stored)  # the tokens
    bases = [int(base) for base in match.metadata.get("bases", "").split() if base.isdecimal()]
    if len(bases) != len(caches):
        raise FormatError("it has another number of layers")
    layers = []
    for number, (cache, base) in enumerate(zip(caches, bases, strict=True)):
        if not isinstance(cache, KVCache):
            raise FormatError(f"it cannot fill a {type(cache).__name__}")
        names = cache.kv_format.names
        tensors = list(islice(stored, len(names)))
        expected = [
            (
                f"layers.{number}.{name}",
                _DTYPE_CODES[empty.dtype],
                (*empty.shape[:2], match.length - base, empty.shape[3]),
            )
            for name, empty in zip(names, cache.kv_format.empty(0), strict=True)
        ]
        if [(info.name, info.dtype, info.shape) for info in tensors] != expected:
            raise FormatError(f"its layer {number} is of another form")
        layers.append(LayerMatch(cache, base, tensors))
    if next(stored, None) is not None:
        raise FormatError("it has more than its layers")
    return layers


def fill_caches(match: PrefixMatch, layers: Sequence[LayerMatch], length: int) -> None:
    """Fill the caches with the first ``length`` tokens of a file, a layer at a time.

    Raises:
        FormatError: the bytes are not those that were written; the caches may hold anything.
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    tokens = match.tensors["tokens"]
    with match.path.open("rb", buffering=0) as file:
        file.seek(tokens.offset)
        digest.update(_read_bytes(file, tokens))
        for layer in layers:
            arrays = []
            for info, empty in zip(layer.tensors, layer.cache.kv_format.empty(0), strict=True):
                data = _read_bytes(file, info)
                digest.update(data)
                _, uint = _UINT_DTYPES[empty.dtype.size]
                # (1, G, S - base, D), of which the tokens before ``length``
                values = data.view(uint).reshape(info.shape)[:, :, : length - layer.base]
                arrays.append(mx.array(values).view(empty.dtype))
            layer.cache.replace(arrays, layer.base)
            mx.eval(layer.cache.arrays)
    if digest.hexdigest() != match.metadata.get("sha256"):
        raise FormatError("its bytes are not those that were written")


def sequence_tensors(tokens: Sequence[int], caches: Sequence[KVCache]) -> list[TensorData]:
    """Return the tensors of a sequence's file, in the order of the file."""
    tensors = [TensorData("tokens", "I32", (len(tokens),), np.array(tokens, np.int32))]
    for layer, cache in enumerate(caches):
        arrays = cache.part(cache.base, cache.offset)
        for name, array in zip(cache.kv_format.names, arrays, strict=True):
            code = _DTYPE_CODES[array.dtype]
            tensors.append(
                TensorData(f"layers.{layer}.{name}", code, tuple(array.shape), _LazyBytes(array))
            )
    return tensors


def write_sequence(
    path: Path, tensors: Sequence[TensorData], caches: Sequence[KVCache], *, key: str
) -> None:
    """Write a sequence, whole or not at all. Raises ConversionError."""
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "key": key,
        "bases": " ".join(str(cache.base) for cache in caches),
        "sha256": _digest(tensors),
    }
    write_tensors(path, tensors, metadata=metadata, private=True)


class _LazyBytes:
    """An array's bytes, made contiguous when iterated over: never of all layers at once."""

    def __init__(self, array: mx.array) -> None:
        self._array = array

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        dtype, _ = _UINT_DTYPES[self._array.dtype.size]
        yield np.ascontiguousarray(np.array(self._array.view(dtype), copy=False))


def _digest(tensors: Sequence[TensorData]) -> str:
    tokens, *layers = tensors
    digest = hashlib.sha256(cast(npt.NDArray[np.int32], tokens.data))
    for tensor in layers:
        for array in cast(_LazyBytes, tensor.data):
            digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _read_bytes(file: IO[bytes], info: TensorInfo) -> npt.NDArray[np.uint8]:
    data = np.fromfile(file, np.uint8, info.nbytes)
    if len(data) != info.nbytes:
        raise FormatError("it was cut short while it was read")
    return data
