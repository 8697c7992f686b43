"""Kept inputs: a file gives back what memory would, and says what it lacks before a step begins."""

import errno
import os
import resource
import threading

import mlx.core as mx
import numpy as np
import pytest

from edgellm.errors import ConversionError, ReadError
from edgellm.training.kept_inputs import InputFile, InputsOnDisk

LAYERS = 5


def inputs_of(layer, dtype=mx.float32):
    """Inputs of two micro-batches."""
    draws = np.random.default_rng(layer)
    made = [
        mx.array(draws.standard_normal((1, tokens, 24)).astype(np.float32)).astype(dtype)
        for tokens in (7, 3)
    ]
    mx.eval(made)
    return made


def equal(one, two):
    return len(one) == len(two) and all(
        a.dtype == b.dtype and mx.array_equal(a, b) for a, b in zip(one, two, strict=True)
    )


@pytest.fixture
def file(tmp_path):
    made = []

    def make(layers=LAYERS, nbytes=1 << 20):
        made.append(InputFile(InputsOnDisk(tmp_path, layers, nbytes)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("on_disk", [0, 1, 3, LAYERS])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_what_is_kept_comes_back_last_first(file, on_disk, dtype):
    own = file(on_disk)
    for _ in range(2):  # a second step takes the same places
        stack = own.stack()
        for layer in range(LAYERS):
            stack.append(inputs_of(layer, dtype))
        for layer in reversed(range(LAYERS)):
            assert equal(stack.pop(), inputs_of(layer, dtype))
    per_layer = sum(array.nbytes for array in inputs_of(0, dtype))
    assert own.bytes_written == own.bytes_read == 2 * on_disk * per_layer


def test_a_step_that_was_stopped_leaves_nothing_to_the_next(file):
    own = file()
    stack = own.stack()
    for layer in range(3):
        stack.append(inputs_of(layer))
    assert equal(stack.pop(), inputs_of(2))
    stack = own.stack()
    stack.append(inputs_of(9))
    assert equal(stack.pop(), inputs_of(9))


def test_the_file_has_no_name_and_is_gone_when_it_is_closed(file, tmp_path):
    own = file(nbytes=3 << 20)
    own.stack().append(inputs_of(0))
    assert list(tmp_path.iterdir()) == []
    before = {thread.name for thread in threading.enumerate()}
    own.close()
    left = {thread.name for thread in threading.enumerate()}
    assert any(name.startswith("edgellm-inputs") for name in before - left)


def test_a_disk_without_room_is_told_before_a_step(file, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(ConversionError, match="0\\.00 GB of kept inputs") as refused:
        file()
    assert "raise --memory" in refused.value.hint


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="told when it is written")
def test_a_limit_of_file_sizes_is_told_before_a_step(file):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(ConversionError, match="files may not be that large here"):
            file(nbytes=1 << 24)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_fails_stops_the_step(file, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", broken)
    stack = file().stack()

    def go_on():
        for layer in range(LAYERS):
            stack.append(inputs_of(layer))

    with pytest.raises(ConversionError, match="kept inputs cannot be written"):
        go_on()


def test_the_last_write_fails_and_nothing_wrong_is_read(file, monkeypatch):
    stack = file().stack()
    stack.append(inputs_of(0))

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", broken)
    stack.append(inputs_of(1))
    with pytest.raises(ConversionError, match="kept inputs cannot be written"):
        stack.pop()


def test_a_file_that_is_cut_is_an_error(file):
    own = file()
    stack = own.stack()
    stack.append(inputs_of(0))
    own._settle()
    os.ftruncate(own._file.fileno(), 100)
    with pytest.raises(ReadError, match="cut short"):
        stack.pop()
