"""Rows of a tensor that lies in a file, read when they are asked for; and whether files are still those that were."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgellm.converters.huggingface.torch_file import TorchTensor
from edgellm.converters.tensors.source import Bytes
from edgellm.errors import ReadError


def read_span(path: Path, offset: int, length: int) -> Bytes:
    """``length`` bytes of a file from ``offset`` on. Raises ReadError."""
    content = np.empty(length, np.uint8)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            done = 0
            while done < length:
                count = file.readinto(memoryview(content)[done:])
                if not count:
                    raise ReadError(
                        f"{path} ends at byte {offset + done}; it was cut short while it was read"
                    )
                done += count
    except OSError as error:
        raise ReadError(f"{path} cannot be read at byte {offset}: {error.strerror}") from error
    return content


def read_rows(tensor: TorchTensor, start: int, stop: int) -> Bytes:
    """The bytes of some rows, gathered where PyTorch has stored a view that is not contiguous. Raises ReadError."""
    info = tensor.info
    count = math.prod(info.shape)
    width = info.nbytes // count if count else 0
    if tensor.strides is None:
        row = math.prod(info.shape[1:]) * width
        return read_span(info.file, info.offset + start * row, (stop - start) * row)
    lengths = (stop - start, *info.shape[1:])
    span = (
        sum((length - 1) * stride for length, stride in zip(lengths, tensor.strides, strict=True))
        + width
    )
    content = read_span(info.file, info.offset + start * tensor.strides[0], span)
    view = np.ndarray((*lengths, width), np.uint8, content, 0, (*tensor.strides, 1))
    return np.ascontiguousarray(view).reshape(-1)


def files_fingerprint(files: Iterable[Path]) -> str:
    """Names, sizes and times of files: a text that changes when one of them does."""
    digest = hashlib.sha256()
    for file in sorted(files):
        status = file.stat()
        digest.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()
