"""A sample of what engines have to stand."""

import threading

import pytest

import edgellm
from stress.engines import MEMORY_MARGIN, stress

pytestmark = pytest.mark.slow


def test_a_thousand_sequences_from_threads_leave_nothing(tiny_folder):
    with edgellm.load(tiny_folder("llama-2", seed=1), memory="500MB", threads=1) as llm:
        threads = threading.active_count()
        begin, end = stress(llm, 1000, check=100)
        assert threading.active_count() == threads
        assert end - begin < MEMORY_MARGIN
