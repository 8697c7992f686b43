"""One process has a client's place at a time."""

from edgellm.federation.flower.places import GONE_SECONDS, Places


def test_a_place_is_its_first_ones_until_that_is_silent_or_leaves():
    now = [100.0]
    places = Places(lambda: now[0])
    assert places.take("a", "one")
    assert places.take("b", "two")
    assert not places.take("a", "two")
    now[0] += GONE_SECONDS - 1
    assert places.holds("a", "one")  # is heard
    now[0] += GONE_SECONDS - 1
    assert not places.take("a", "two")
    assert not places.holds("a", "two")
    now[0] += 2
    assert places.take("a", "two")
    assert not places.holds("a", "one")
    assert places.arrivals == {"a": 2, "b": 1}
    places.leave("a")
    assert places.take("a", "one")


def test_a_process_that_was_silent_has_its_place_where_nobody_else_came():
    now = [0.0]
    places = Places(lambda: now[0])
    assert places.take("a", "one")
    now[0] += 100 * GONE_SECONDS  # a laptop that slept
    assert places.holds("a", "one")
    assert not places.take("a", "two")
