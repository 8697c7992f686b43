"""Samples of clients that would hang a server."""

import pytest

from stress.hostile_clients import full_cache, retry_storm, stopped_reader

pytestmark = pytest.mark.slow


def test_others_keep_their_pace_beside_a_client_that_reads_nothing():
    rows, is_right = stopped_reader(2, choices=4)
    assert is_right, rows


def test_full_caches_hang_nobody():
    rows, is_right = full_cache(2, count=30, memory="20MB")
    assert is_right, rows


def test_clients_that_ask_again_at_once_are_refused_until_there_is_room():
    rows, is_right = retry_storm(2)
    assert is_right, rows
