"""The inputs of layers, kept on the way up for the way down, in memory or in a file.

Those of the lowest layers go to the file. What is kept last is needed first, so the file is written
upwards and read downwards, each ahead of the arithmetic.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.errors import EdgeLLMError, ReadError
from edgellm.files.refusals import write_error

Bytes = npt.NDArray[np.uint8]

UNDER_WAY = 2
"""Layers whose inputs are being written, or are being read and in use: memory holds them, too."""


class KeptInputs(Protocol):
    """A stack of inputs, of which a list is one."""

    def append(self, inputs: list[mx.array], /) -> None:
        """Keep a layer's inputs, one of each micro-batch; they are evaluated."""

    def pop(self) -> list[mx.array]:
        """Return those that were kept last, and keep them no more."""


@dataclass(frozen=True, slots=True)
class InputsOnDisk:
    """Where the inputs of the lowest layers go.

    Attributes:
        folder: on whose disk.
        layers: how many of them, from the first that is changed.
        nbytes: of all of them at most.
    """

    folder: Path
    layers: int
    nbytes: int


class InputFile:
    """A file without a name: it is gone with the process, however that ends.

    Args:
        place: where it is, and how large.

    Attributes:
        layers: whose inputs go there.
        waited: seconds that the arithmetic waited for it.
        bytes_written: so far.
        bytes_read: so far.

    Raises:
        ConversionError: the disk has no room for all of it, or refuses.
    """

    def __init__(self, place: InputsOnDisk) -> None:
        self.layers: int = place.layers
        self.waited: float = 0.0
        self.bytes_written: int = 0
        self.bytes_read: int = 0
        self._folder = place.folder
        self._under_way: list[Future[None]] = []
        try:
            # it is open as long as the run is
            self._file = tempfile.TemporaryFile(dir=place.folder, buffering=0)  # noqa: SIM115
            try:
                _reserve(self._file.fileno(), place.nbytes)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise self._refusal(error, f"{place.nbytes / 1e9:.2f} GB of kept inputs") from error
        # one thread: what is written is there before it is read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edgellm-inputs")

    def stack(self) -> KeptInputs:
        """Return an empty stack; the one before it is of no use any more."""
        self._settle()
        return _Stack(self)

    def close(self) -> None:
        """Wait for what is under way, and give the disk its space back."""
        self._settle()
        self._thread.shutdown()
        self._file.close()

    def write(self, parts: Sequence[Bytes], begin: int) -> None:
        """Begin to write parts one after the other, from a place on."""
        while len(self._under_way) >= UNDER_WAY:
            self.wait(self._under_way[0])
        self._under_way.append(self._thread.submit(self._write, parts, begin))

    def read(self, parts: Sequence[Bytes], begin: int) -> Future[None]:
        """Begin to read parts that lie one after the other, from a place on."""
        self._under_way.append(self._thread.submit(self._read, parts, begin))
        return self._under_way[-1]

    def wait(self, work: Future[None]) -> None:
        """Wait for something, and all before it. Raises ConversionError, ReadError."""
        begun, waits = time.perf_counter(), not work.done()
        while self._under_way:
            each = self._under_way.pop(0)
            each.result()
            if each is work:
                break
        if waits:
            self.waited += time.perf_counter() - begun

    def _write(self, parts: Sequence[Bytes], place: int) -> None:
        for part in parts:
            rest = part
            while rest.nbytes:  # a call may write less than it was given
                try:
                    count = os.pwrite(self._file.fileno(), rest, place)
                except OSError as error:
                    raise self._refusal(error, "kept inputs") from error
                rest, place = rest[count:], place + count
            self.bytes_written += part.nbytes

    def _read(self, parts: Sequence[Bytes], place: int) -> None:
        for part in parts:
            rest = part
            while rest.nbytes:
                try:
                    count = os.preadv(self._file.fileno(), [rest], place)
                except OSError as error:
                    reason = error.strerror
                    raise ReadError(f"kept inputs cannot be read: {reason}") from error
                if not count:
                    raise ReadError("kept inputs are cut short")
                rest, place = rest[count:], place + count
            self.bytes_read += part.nbytes

    def _settle(self) -> None:
        for work in self._under_way:
            with suppress(EdgeLLMError):
                work.result()
        self._under_way.clear()

    def _refusal(self, error: OSError, what: str) -> EdgeLLMError:
        refusal = write_error(self._folder / what, error)
        refusal.hint = f"{refusal.hint}; or raise --memory, so that they stay in memory"
        return refusal


@dataclass(slots=True)
class _Written:
    """A layer's inputs in the file.

    Attributes:
        begin: their place.
        forms: shape and type of each.
        read: what they are read into, and until when; None: nothing is read yet.
    """

    begin: int
    forms: list[tuple[tuple[int, ...], mx.Dtype]]
    read: tuple[list[mx.array], Future[None]] | None = None


class _Stack:
    """The inputs of one step; those that are kept first are in a file."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._end = 0
        self._written: list[_Written] = []
        self._in_memory: list[list[mx.array]] = []

    def append(self, inputs: list[mx.array]) -> None:
        """Keep a layer's inputs."""
        if len(self._written) == self._file.layers:
            self._in_memory.append(inputs)
            return
        flat = [array.reshape(-1).view(mx.uint8) for array in inputs]
        mx.eval(flat)
        parts: list[Bytes] = [np.array(array, copy=False) for array in flat]
        self._file.write(parts, self._end)
        forms = [(tuple(array.shape), array.dtype) for array in inputs]
        self._written.append(_Written(self._end, forms))
        self._end += sum(part.nbytes for part in parts)

    def pop(self) -> list[mx.array]:
        """Return the inputs that were kept last, and begin to read those before them."""
        if self._in_memory:
            found = self._in_memory.pop()
            if not self._in_memory:
                self._read_ahead()
            return found
        self._read_ahead()
        last = self._written.pop()
        assert last.read is not None, "it was just begun"
        memory, work = last.read
        self._file.wait(work)
        self._read_ahead()
        found = [
            array.view(dtype).reshape(shape)
            for array, (shape, dtype) in zip(memory, last.forms, strict=True)
        ]
        mx.eval(found)
        return found

    def _read_ahead(self) -> None:
        """Begin to read the inputs that are needed next, where that is not done yet."""
        if not self._written or self._written[-1].read is not None:
            return
        last = self._written[-1]
        sizes = [int(np.prod(shape)) * dtype.size for shape, dtype in last.forms]
        memory = [mx.zeros((size,), dtype=mx.uint8) for size in sizes]
        mx.eval(memory)
        last.read = memory, self._file.read([_writable(array) for array in memory], last.begin)


def _writable(array: mx.array) -> Bytes:
    """Return an array's memory, to be written to before anything is computed of it."""
    buffer: Any = array  # has the buffer protocol, which MLX's stubs do not say
    return np.frombuffer(memoryview(buffer), dtype=np.uint8)


def _reserve(descriptor: int, nbytes: int) -> None:
    """Take so many bytes of the disk, so that a full one is told now. Raises OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, nbytes)
    else:  # macOS; what does not fit is told when it is written
        os.ftruncate(descriptor, nbytes)
