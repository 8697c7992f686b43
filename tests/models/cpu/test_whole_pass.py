"""A few tokens through the whole model in native calls, against its parts called one by one."""

import mlx.core as mx
import numpy as np
import pytest
from support.paged import open_model

from edgellm.hub.resolve import locate
from edgellm.kernels.host import unavailable
from edgellm.models.layers import Span
from edgellm.settings import DEFAULT_MODEL

pytestmark = [
    pytest.mark.skipif(unavailable() is not None, reason=str(unavailable())),
    pytest.mark.usefixtures("on_the_cpu"),
]

PROMPT = [5, 300, 42, 7]


@pytest.fixture(scope="module")
def llm():
    with open_model(locate(DEFAULT_MODEL), context=64, threads=2) as llm:
        yield llm


def filled(llm, tokens):
    """Caches that hold some tokens."""
    caches = llm.caches.make(capacity=64, reserve=64)
    assert llm.model.step(tokens, [Span(caches, len(tokens))]) is not None
    return caches


@pytest.mark.parametrize("sequences", [1, 3, 7])
def test_logits_are_those_of_the_parts_one_by_one(llm, sequences):
    tokens = list(range(10, 10 + sequences))
    texts = [PROMPT[: 1 + number % 4] for number in range(sequences)]
    spans = [[Span(filled(llm, text), 1) for text in texts] for _ in range(2)]
    for _ in range(2):  # steps are made, then remembered
        found = llm.model.step(tokens, spans[0])
        hidden = llm.model.hidden_ragged([mx.array(tokens)[None]], [spans[1]])
        assert np.array_equal(found, llm.model.logits(hidden[0][0]))


def test_a_tree_s_logits_are_those_of_its_branches(llm):
    tree = Span(filled(llm, PROMPT), 4, levels=[0, 1, 1, 2])
    found = np.array(llm.model.step([9, 20, 30, 31], [tree]))
    for rows, branch in (([0, 1], [9, 20]), ([0, 2, 3], [9, 30, 31])):
        alone = llm.model.step(branch, [Span(filled(llm, PROMPT), len(branch))])
        assert np.array_equal(found[rows], alone)


def test_a_pass_ends_where_nobody_waits(llm):
    caches = filled(llm, PROMPT)
    assert llm.model.step([9], [Span(caches, 1)], keep_going=lambda: False) is None
    assert [cache.offset for cache in caches] == [len(PROMPT)] * len(caches)
