"""One safetensors file: its header read and checked, and written aligned and whole.

The format: 8 bytes little-endian header length, a JSON header that may end in spaces, the tensors'
bytes without holes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgellm.errors import FormatError, ReadError
from edgellm.files.atomic import Data, FileRecord, write_file
from edgellm.files.bounded import read_errors, refuse_lfs_pointer, require_regular_file
from edgellm.files.strict_json import MAX_BYTES, parse_json, quoted

if TYPE_CHECKING:
    import mlx.core as mx

DTYPE_BYTES: Mapping[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}
"""Bytes of one value, by the format's code."""

DATA_ALIGNMENT = 16 * 1024
"""Bytes; where the data of our files begins: a page of every machine we know (macOS: 16 KiB)."""

MAX_RANK = 8
"""Axes of a tensor; no model has as many."""

LENGTH_BYTES = 8
"""Bytes of the header's length, before the header."""

COMPARED_BYTES = 1 << 20
"""Bytes read at once where tensors are compared."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies.

    Attributes:
        name: the name of the tensor.
        dtype: the format's code (``BF16``).
        shape: the shape of the tensor.
        file: the file that holds it.
        offset: the offset of its first byte in the file.
        nbytes: bytes of the tensor.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int

    def part(self, name: str, start: int, stop: int | None) -> TensorInfo:
        """Return rows ``start`` to ``stop`` (None: the last) as a tensor of another name."""
        rows = next(iter(self.shape), 1)
        end = rows if stop is None else stop
        row_bytes = self.nbytes // max(1, rows)
        shape = self.shape
        if shape:
            shape = (end - start, *shape[1:])
        return TensorInfo(
            name,
            self.dtype,
            shape,
            self.file,
            self.offset + start * row_bytes,
            (end - start) * row_bytes,
        )


@dataclass(frozen=True, slots=True)
class TensorData:
    """One tensor to be written.

    Attributes:
        name: the name of the tensor.
        dtype: the format's code (``BF16``).
        shape: the shape of the tensor.
        data: its bytes, or what yields them part by part when their turn comes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: Data | Iterable[Data]

    @property
    def nbytes(self) -> int:
        """Bytes, from type and shape."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


def read_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Return the tensors of a safetensors file in the order of their bytes, and its metadata.

    Every claim is checked against the file: afterwards each tensor's bytes lie inside it, apart
    from all others.

    Raises:
        FormatError: the header is damaged or lies.
        ReadError: the file cannot be read.
    """
    size = require_regular_file(path)
    text = _read_header_text(path, size)
    header = parse_json(text, f"the header of {path}")
    metadata = _metadata(header.pop("__metadata__", None), path)
    start = LENGTH_BYTES + len(text)
    tensors = [_tensor(name, claim, path, start) for name, claim in header.items()]
    # a tensor without bytes comes before the one that begins where it does
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    _check_gapless(tensors, path, start, size)
    return {tensor.name: tensor for tensor in tensors}, metadata


def load_arrays(path: Path) -> dict[str, mx.array]:
    """Return the arrays of a file whose header is good. Raises RuntimeError, as MLX does."""
    import mlx.core as mx

    return cast("dict[str, mx.array]", mx.load(str(path)))


def hold_the_same(one: TensorInfo, other: TensorInfo) -> bool:
    """Return whether two tensors have one type, one shape and the same bytes.

    Reading ends at the first difference. Raises ReadError.
    """
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with (
        read_errors(one.file),
        one.file.open("rb", buffering=0) as first,
        other.file.open("rb", buffering=0) as second,
    ):
        first.seek(one.offset)
        second.seek(other.offset)
        for begin in range(0, one.nbytes, COMPARED_BYTES):
            count = min(COMPARED_BYTES, one.nbytes - begin)
            if first.read(count) != second.read(count):
                return False
    return True


def _read_header_text(path: Path, size: int) -> bytes:
    """Read the header of a file of ``size`` bytes. Raises FormatError, ReadError."""
    if size < LENGTH_BYTES:
        raise FormatError(
            f"{path} is cut short: it has {size} bytes", hint="download or convert the model again"
        )
    try:
        with path.open("rb") as file:
            length_field = file.read(LENGTH_BYTES)
            refuse_lfs_pointer(path, length_field)
            length = int.from_bytes(length_field, "little")
            if length > size - LENGTH_BYTES:
                raise FormatError(
                    f"{path} is cut short or not a safetensors file: "
                    f"its header claims {length} bytes of {size}",
                    hint="download or convert the model again",
                )
            if length > MAX_BYTES:
                raise FormatError(
                    f"the header of {path} claims {length} bytes; at most {MAX_BYTES} are read"
                )
            text = file.read(length)
    except OSError as error:
        raise ReadError(f"{path} cannot be read at offset 0: {error.strerror}") from error
    if not text.startswith(b"{"):
        raise FormatError(f"the header of {path} does not begin with a brace")
    return text


def _check_gapless(tensors: Sequence[TensorInfo], path: Path, start: int, size: int) -> None:
    """Raise FormatError unless tensors fill a file from ``start`` to its end, ``size``."""
    end = start
    for tensor in tensors:
        where = f"tensor {quoted(tensor.name)} of {path}"
        if tensor.offset < end:
            raise FormatError(f"{where} overlaps the one before it")
        if tensor.offset > end:
            raise FormatError(f"{where} leaves a hole before it")
        end += tensor.nbytes
    if end != size:
        fault = "is cut short" if end > size else "has bytes that no tensor claims"
        raise FormatError(
            f"{path} {fault}: its tensors end at byte {end}, the file at {size}",
            hint="download or convert the model again",
        )


def write_tensors(
    path: Path,
    tensors: Sequence[TensorData],
    *,
    metadata: Mapping[str, str] | None = None,
    private: bool = False,
) -> FileRecord:
    """Write a safetensors file whose data begins on a 16 KiB boundary, whole or not at all.

    Tensors are written in the order given, each consumed when its turn comes, so that one that
    yields its bytes part by part is never in memory whole. The file appears under its name only
    when every byte of it is on the disk; ``private`` as in ``write_file``.

    Raises:
        ConversionError: the disk is full or refuses; nothing is left behind.
    """
    header = make_header(tensors, metadata)
    return write_file(path, chain([header], *map(_data, tensors)), private=private)


def make_header(
    tensors: Sequence[TensorData | TensorInfo], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return what stands before the tensors' bytes in a file that has them in this order."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "mlx"})}
    end = 0
    for tensor in tensors:
        if tensor.name in entries:
            raise AssertionError(f"{tensor.name} occurs twice")
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.nbytes],
        }
        end += tensor.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode("utf-8")
    # spaces up to the boundary at which the data is to begin
    text += b" " * (-(LENGTH_BYTES + len(text)) % DATA_ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _data(tensor: TensorData) -> Iterator[Data]:
    """Yield a tensor's bytes, and check that they are as many as its shape says."""
    parts = cast("Iterable[Data]", tensor.data)
    # a NumPy array is known by its interface: this module does not import NumPy
    is_array = hasattr(tensor.data, "__array_interface__")
    if is_array or isinstance(tensor.data, bytes | bytearray | memoryview):
        parts = [cast("Data", tensor.data)]
    written = 0
    for part in parts:
        written += memoryview(part).nbytes
        yield part
    if written != tensor.nbytes:
        raise AssertionError(f"{tensor.name}: {written} bytes given, {tensor.nbytes} declared")


def _metadata(claim: Any, path: Path) -> dict[str, str]:
    # MLX writes null where there is none
    if claim is None:
        return {}
    if not isinstance(claim, dict) or not all(isinstance(value, str) for value in claim.values()):
        raise FormatError(f"the metadata of {path} is not text by name")
    return claim


def _tensor(name: str, claim: Any, path: Path, start: int) -> TensorInfo:
    where = f"tensor {quoted(name)} of {path}"
    if not isinstance(claim, dict) or not claim.keys() >= {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where} has no dtype, shape and data_offsets")
    dtype, shape, offsets = claim["dtype"], claim["shape"], claim["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise FormatError(f"{where} has the unknown dtype {quoted(dtype)}")
    if not _is_counts(shape) or len(shape) > MAX_RANK:
        raise FormatError(f"{where} has an impossible shape: {quoted(shape)}")
    if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FormatError(f"{where} has impossible offsets: {quoted(offsets)}")
    nbytes = math.prod(shape) * DTYPE_BYTES[dtype]
    if nbytes != offsets[1] - offsets[0]:
        raise FormatError(
            f"{where} needs {nbytes} bytes by its shape "
            f"and has {offsets[1] - offsets[0]} by its offsets"
        )
    return TensorInfo(name, dtype, tuple(shape), path, start + offsets[0], nbytes)


def _is_counts(value: Any) -> bool:
    """Return whether it is a list of whole numbers from 0 to 2**63 - 1; true is not a number."""
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 1 << 63 for item in value
    )
