"""Prompt lookup: which earlier run is found, and what is proposed after it."""

from hypothesis import given
from hypothesis import strategies as st

from edgellm.settings import Sampling
from edgellm.speculation.ngram import NGramDrafter
from edgellm.speculation.proposal import DraftToken


def test_looking_up_takes_the_longest_run_and_the_latest_of_equal_ones():
    ngrams = NGramDrafter()
    ngrams.begin([1, 2, 3, 4, 9, 2, 3, 5, 8, 2, 3, 6, 1, 2, 3], Sampling())
    found = ngrams.propose()
    # 1 2 3, not the later 2 3
    assert [next(found) for _ in range(3)] == [DraftToken(4, 3), DraftToken(9, 4), DraftToken(2, 5)]
    ngrams.begin([7, 2, 3, 5, 8, 2, 3, 6, 9, 2, 3], Sampling())
    assert next(ngrams.propose()).token == 6
    ngrams.begin([5, 6, 7, 5, 6, 7, 5, 6], Sampling())
    found = ngrams.propose()
    # past the end of the text
    assert [next(found).token for _ in range(7)] == [7, 5, 6, 7, 5, 6, 7]
    for text in ([], [1], [1, 2], [1, 2, 3, 4]):
        ngrams.begin(text, Sampling())
        assert list(ngrams.propose()) == []
    ngrams.add(3)
    ngrams.add(4)
    assert next(ngrams.propose()).token == 3


@given(tokens=st.lists(st.integers(0, 3), max_size=60))
def test_looking_up_as_tokens_come_is_looking_up_at_once(tokens):
    one, other = NGramDrafter(), NGramDrafter()
    one.begin(tokens, Sampling())
    other.begin(tokens[:7], Sampling())
    for token in tokens[7:]:
        other.add(token)
    first, second = one.propose(), other.propose()
    assert [next(first, None) for _ in range(9)] == [next(second, None) for _ in range(9)]
