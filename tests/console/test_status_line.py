"""The status line: when it shows, and what it says."""

from hypothesis import given
from hypothesis import strategies as st
from support.screen import Clock

from edgellm.console.status_line import FIRST_PATIENCE, Activity
from edgellm.generation.decode import Progress


def test_the_line_shows_only_when_nothing_comes():
    clock = Clock()
    watched = Activity(lambda: 0, clock)
    assert not watched.quiet
    clock.now += FIRST_PATIENCE + 0.1
    assert watched.quiet
    watched.token()
    assert not watched.quiet
    clock.now += 0.9
    assert not watched.quiet
    clock.now += 0.2
    assert watched.quiet


def test_the_line_tells_tokens_time_and_what_the_disk_gives():
    clock, read = Clock(), [10**9]
    watched = Activity(lambda: read[0], clock)
    watched.prefill(Progress(1500))
    clock.now += 2
    assert watched.line(200)[2:] == "reading the prompt, 1,500 tokens · 2.0 s"
    watched.prefill(Progress(1500, prefill_done=512))
    assert watched.line(200)[2:] == "reading the prompt, 512 of 1,500 tokens · 2.0 s"
    watched.token()
    clock.now += 2
    read[0] += 8 * 10**9
    assert watched.line(200)[2:] == "1 token · 4.0 s · 8.00 GB read · 2.00 GB/s"
    watched.stopping = True
    assert "Ctrl-C again" in watched.line(200)


@given(st.integers(0, 120), st.integers(0, 100), st.floats(0, 10**5), st.integers(0, 10**15))
def test_the_line_fits_into_what_room_there_is(room, tokens, elapsed, read):
    clock, counted = Clock(), [0]
    watched = Activity(lambda: counted[0], clock)
    for _ in range(tokens):
        watched.token()
    clock.now += elapsed
    counted[0] = read
    assert len(watched.line(room)) <= room
    assert watched.line(200)
