"""A line that comes again and again is said once a minute, with a count."""

from edgellm.repeats import MAX_NOTED, QUIET_SECONDS, Repeats


def test_a_line_is_said_once_a_minute_with_a_count():
    said, now = [], [0.0]
    repeats = Repeats(lambda: now[0])
    for _ in range(500):
        repeats.say("it is gone", said.append)
    repeats.say("another", said.append)
    assert said == ["it is gone", "another"]
    now[0] += QUIET_SECONDS
    repeats.say("it is gone", said.append)
    repeats.say("it is gone", said.append)
    assert said[2:] == ["it is gone (499 more since the last time)"]


def test_lines_of_one_kind_are_counted_together():
    said, now = [], [0.0]
    repeats = Repeats(lambda: now[0])
    for port in range(9):
        repeats.say(f"10.0.0.1 from {port}", said.append, of="10.0.0.1")
    now[0] += QUIET_SECONDS
    repeats.say("10.0.0.1 says nothing", said.append, of="10.0.0.1")
    assert said == ["10.0.0.1 from 0", "10.0.0.1 says nothing (8 more since the last time)"]


def test_so_many_are_remembered():
    repeats = Repeats(lambda: 0.0)
    for number in range(2 * MAX_NOTED):
        assert repeats.due(str(number)) == 0
    assert len(repeats._said) == MAX_NOTED
