"""Events are read the same however their bytes are cut."""

from hypothesis import given
from hypothesis import strategies as st

from edgellm.bench.serving.answer import Answer, EventReader

EVENTS = [
    b": a comment\n\n",
    b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": null}]}\r\n\r\n',
    b'data:{"choices": [{"delta": {"content": "\\u2028 data: x"}}]}\n\n',
    b'event: x\ndata: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n',
    b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}\n\n',
    b"data: [DONE]\n\n",
]


@st.composite
def cut_streams(draw):
    """A stream in chunks of any size, cut into pieces anywhere, and whether it has sizes."""
    whole = b"".join(EVENTS)
    is_chunked = draw(st.booleans())
    if is_chunked:
        places = sorted(draw(st.sets(st.integers(1, len(whole) - 1), max_size=8)))
        chunks = [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]
        whole = b"".join(b"%x;a=b\r\n%s\r\n" % (len(one), one) for one in chunks) + b"0\r\n\r\n"
    cuts = sorted(draw(st.sets(st.integers(1, len(whole) - 1), max_size=20)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    return pieces, is_chunked


@given(cut_streams())
def test_a_stream_is_read_the_same_however_it_is_cut(cut):
    pieces, is_chunked = cut
    answer = Answer(asked=0.0)
    reader = EventReader(answer, is_chunked=is_chunked)
    for moment, piece in enumerate(pieces):
        reader.feed(piece, float(moment))
    reader.finish(99.0)
    assert answer.failure is None
    assert len(answer.arrivals) == 2
    assert answer.arrivals == sorted(answer.arrivals)
    assert (answer.tokens, answer.prompt_tokens, answer.finish_reason) == (5, 3, "stop")
    assert answer.ended == 99.0
