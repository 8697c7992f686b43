"""Stop texts: found across token borders, never shown; what only looked like one is not lost."""

from hypothesis import given
from hypothesis import strategies as st

from edgellm.generation.text_stream import StopFilter


def naive(text, stops):
    """The text before the stop text that is complete first, and whether there was one."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


def run(pieces, stops):
    """All that comes through, and what had come through after each piece."""
    shown, steps = "", []
    stopping = StopFilter(stops)
    for piece in pieces:
        shown += stopping.add(piece)
        steps.append(shown)
    return shown + stopping.finish(), stopping.stopped, steps


few_letters = st.text("ab", max_size=12)


@given(
    st.lists(few_letters, max_size=12), st.lists(st.text("ab", min_size=1, max_size=6), max_size=3)
)
def test_it_lets_through_what_a_naive_search_does_wherever_tokens_begin(pieces, stops):
    shown, stopped, steps = run(pieces, stops)
    assert (shown, stopped) == naive("".join(pieces), stops)
    for count, step in enumerate(steps, 1):
        so_far = "".join(pieces[:count])
        assert shown.startswith(step), "what was shown is never taken back"
        held = max(map(len, stops), default=1) - 1
        if not naive(so_far, stops)[1]:
            assert len(step) >= len(so_far) - held, (
                "no more is held back than could become a stop text"
            )


@given(st.lists(st.text(), max_size=8))
def test_without_stop_texts_everything_comes_at_once(pieces):
    stopping = StopFilter(())
    assert [stopping.add(piece) for piece in pieces] == pieces
    assert stopping.finish() == ""


def test_after_the_stop_nothing_comes():
    stopping = StopFilter(["END"])
    assert [stopping.add(piece) for piece in ("one E", "N", "D two", " three")] == [
        "one ",
        "",
        "",
        "",
    ]
    assert stopping.stopped
    assert stopping.finish() == ""
