"""Parts of a prompt are on several machines at once, and an error or a no ends all of them."""

import threading
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from support.resources import NOTHING, held, more_since

from edgellm.distributed.parts.wire import packed, unpacked
from edgellm.distributed.remote.stages import PIECE_TOKENS, StagedPass, in_pieces, joined
from edgellm.errors import MachineError
from edgellm.models.layers import Span, always

PARTS = 4


class Machine:
    """Adds one; at a part of its own it meets others, fails, or is stopped."""

    def __init__(self, at=None, do=lambda: None):
        self.asked = []
        self._at = at
        self._do = do

    def request(self, head, body, *, keep_going):
        self.asked.append(head["number"])
        if head["number"] == self._at:
            self._do()
        if not keep_going():
            return {"states": []}, memoryview(b"")
        shapes, results = packed([unpacked(head["states"], body[0])[0] + 1])
        return {"states": shapes}, results[0]


def requests():
    return [{"number": number} for number in range(PARTS)]


def parts(meet=lambda number: None):
    def part(number):
        meet(number)
        return mx.full((1, 2, 3), float(number))

    return [partial(part, number) for number in range(PARTS)]


def ended(before):
    assert more_since(before) == NOTHING


def test_all_machines_compute_at_once():
    before = held()
    # the third part here, the second one there and the first one on the last machine: all wait
    # until the others are there, too
    together = threading.Barrier(3, timeout=20)
    first, second = Machine(1, together.wait), Machine(0, together.wait)
    here = parts(lambda number: together.wait() if number == 2 else None)
    results = StagedPass(here, [(first, requests()), (second, requests())], always).results()
    assert [float(result[0, 0, 0].item()) for result in results] == [2.0, 3.0, 4.0, 5.0]
    assert first.asked == second.asked == [0, 1, 2, 3]
    ended(before)


def test_a_pass_is_begun_while_another_is_elsewhere():
    before = held()
    meeting = threading.Barrier(2, timeout=20)
    there = Machine(0, meeting.wait)
    first = StagedPass(parts(), [(there, requests())], always)
    # the first part of the first pass is there until the last part of the second is computed here
    here = parts(lambda number: meeting.wait() if number == PARTS - 1 else None)
    second = StagedPass(here, [(Machine(), requests())], always)
    for staged in (second, first):
        assert [float(result[0, 0, 0].item()) for result in staged.results()] == [1, 2, 3, 4]
    ended(before)


@pytest.mark.parametrize("error", [MachineError, KeyError])
@pytest.mark.parametrize("machine", [0, 1])
@pytest.mark.parametrize("part", [0, 2, 3])
def test_an_error_of_a_machine_ends_the_pass(machine, part, error):
    before = held()

    def fail():
        raise error("it is gone")

    machines = [Machine(), Machine()]
    machines[machine] = Machine(part, fail)
    with pytest.raises(error, match="it is gone"):
        StagedPass(parts(), [(one, requests()) for one in machines], always).results()
    ended(before)


@pytest.mark.parametrize("noes", range(PARTS))
def test_a_no_ends_the_pass(noes):
    before = held()
    answers = iter([True] * noes + [False] * 1000)
    machines = [(Machine(), requests()), (Machine(), requests())]
    assert StagedPass(parts(), machines, lambda: next(answers)).results() == []
    ended(before)


def test_an_error_here_ends_the_pass():
    before = held()

    def interrupted(number):
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StagedPass(parts(interrupted), [(Machine(), requests())], always)
    ended(before)


def test_long_prompts_alone_are_cut():
    length = 2 * PIECE_TOKENS + 5
    states = [
        mx.arange(2.0 * tokens).reshape(1, tokens, 2) for tokens in (length, 7, length, length)
    ]
    spans = [
        [Span([], length, many=True)],
        [Span([], 7, many=True)],
        [Span([], length)],
        [Span([], length - 3, many=True), Span([], 3, many=True)],
    ]
    pieces, piece_spans = in_pieces(states, spans)
    assert [piece.shape[1] for piece in pieces] == [
        PIECE_TOKENS,
        PIECE_TOKENS,
        5,
        7,
        length,
        length,
    ]
    assert [sum(span.length for span in own) for own in piece_spans] == [
        piece.shape[1] for piece in pieces
    ]
    whole = joined(pieces, states)
    assert all(
        np.array_equal(np.array(one), np.array(other))
        for one, other in zip(whole, states, strict=True)
    )
