"""Machines that were lost are waited for as long as was said, and not again and again."""

import time
import warnings
from types import SimpleNamespace

import pytest

from edgellm.distributed.remote.cluster_layers import MOST_IN_VAIN, ClusterLayers
from edgellm.distributed.remote.peer import ChangedError
from edgellm.errors import MachineError, MemoryBudgetError
from edgellm.models.layers import always

WAIT = 30


class Lost:
    """A machine that was heard some seconds ago, and answers a call after so many refusals."""

    def __init__(self, *, ago=0.0, refusals=0, refuse=MachineError):
        self.machine = SimpleNamespace(name="second")
        self.is_lost = True
        self.heard_at = time.monotonic() - ago
        self.called = 0
        self._refusals = refusals
        self._refuse = refuse

    def join_again(self, opening, *, seconds=WAIT):
        assert 0 < seconds <= WAIT
        self.called += 1
        if self.called <= self._refusals:
            raise self._refuse("not yet")
        self.is_lost = False


class Layers(ClusterLayers):
    """Layers that do nothing."""

    def _through(self, states, spans, keep_going, depth):
        return states or [None]

    def _close_local(self):
        pass


def layers_on(*peers, wait=WAIT):
    return Layers(0, peers, [{}] * len(peers), wait=wait)


def quietly(layers, keep_going=always):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return layers.are_back(keep_going), [str(one.message) for one in said]


@pytest.mark.parametrize("refuse", [MachineError, MemoryBudgetError])
def test_a_machine_is_called_until_it_is_there(refuse):
    peer, there = Lost(refusals=2, refuse=refuse), Lost()
    there.is_lost = False
    back, said = quietly(layers_on(there, peer))
    assert back
    assert (peer.called, there.called) == (3, 0)
    assert [sentence.partition(":")[0] for sentence in said] == [
        "machine second is gone",
        "machine second is back",
    ]


def test_a_machine_that_came_back_as_another_one_is_not_called_again():
    peer = Lost(refusals=100, refuse=ChangedError)
    assert not quietly(layers_on(peer))[0]
    assert peer.called == 1


@pytest.mark.parametrize("refusals", [0, 100])
def test_one_that_was_lost_long_ago_is_called_once(refusals):
    peer = Lost(ago=WAIT + 1, refusals=refusals)
    back, said = quietly(layers_on(peer))
    assert (back, len(said)) == (refusals == 0, refusals == 0)
    assert peer.called == 1


def test_nobody_is_called_where_no_text_is_to_wait():
    peer = Lost()
    assert quietly(layers_on(peer, wait=0)) == (False, [])
    assert not peer.called


def test_nobody_waits_who_wants_no_answer_any_more():
    answers = iter([True, True, False])
    peer = Lost(refusals=100)
    back, _ = quietly(layers_on(peer), lambda: next(answers))
    assert not back
    assert peer.called == 2


def test_nothing_is_waited_for_where_nothing_was_lost():
    peer = Lost()
    peer.is_lost = False
    assert quietly(layers_on(peer)) == (False, [])


def test_a_machine_that_is_lost_again_and_again_is_let_go():
    peer = Lost()
    layers = layers_on(peer)
    for times in (MOST_IN_VAIN, MOST_IN_VAIN):
        for _ in range(times):
            assert quietly(layers)[0]
            peer.is_lost = True
        assert quietly(layers) == (False, [])
        peer.is_lost = False
        layers.run([], [])  # a pass that is through counts as a new beginning
        peer.is_lost = True


def test_each_loss_is_told_once_and_each_return_with_what_failed_meanwhile():
    peer = Lost(refusals=3, ago=WAIT + 1)
    layers = layers_on(peer)
    said = []
    for _ in range(3):
        said += quietly(layers)[1]
    with pytest.warns(RuntimeWarning, match="is back: texts are computed again; 3 texts failed"):
        layers.run([], [])
    assert said == []  # each of those texts has ended with an error that says so
    for _ in range(2):  # Python shows the same warning of one place once
        peer.is_lost, peer.heard_at = True, time.monotonic()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("default")
            assert layers.are_back(always)
        assert len(seen) == 2
        layers.run([], [])
