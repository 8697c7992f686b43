"""Freed memory goes back to the system when it is asked for."""

import platform

import pytest

from edgellm.device import machine


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_memory_that_is_free_goes_back_to_the_system():
    small = [bytearray(50_000) for _ in range(4000)]
    last = bytearray(50_000)  # in the way of what the allocator gives back by itself
    held = machine.process_memory()
    del small
    machine.release_free_memory()
    assert machine.process_memory() < held - 150_000_000
    del last
