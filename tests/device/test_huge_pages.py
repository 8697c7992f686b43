"""Huge pages change neither what memory holds nor what lies beside it."""

import sys

import mlx.core as mx
import numpy as np
import pytest

from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.device.huge_pages import SIZE, in_huge_pages


def test_only_whole_pages_inside_the_array_change():
    memory = np.frombuffer(memoryview(mx.zeros((5 * SIZE,), dtype=mx.uint8)), dtype=np.uint8)
    memory[:SIZE], memory[-SIZE:] = 7, 9
    moved = in_huge_pages(memory[SIZE:-SIZE])
    assert moved % SIZE == 0
    assert moved <= 3 * SIZE
    assert np.array_equal(memory, np.repeat(np.array([7, 0, 0, 0, 9], np.uint8), SIZE))
    memory[SIZE:-SIZE] = 5
    assert (memory[:SIZE] == 7).all()
    assert (memory[SIZE:-SIZE] == 5).all()


@pytest.mark.parametrize("nbytes", [1, SIZE - 1])
def test_little_memory_stays_as_it_is(nbytes):
    assert in_huge_pages(np.zeros(nbytes, np.uint8)) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the system's own way of giving huge pages")
def test_a_large_slot_is_zeros_that_can_be_written():
    slot = WeightBuffer(3 * SIZE + 5)
    assert not any(slot.memory)
    slot.memory[:] = bytes([1]) * len(slot.memory)
    assert np.frombuffer(slot.memory, np.uint8).sum() == len(slot.memory)
