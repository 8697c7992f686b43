"""Token recycling: what earlier logits held likely comes back as a tree, the likeliest first."""

import numpy as np

from edgellm.settings import Sampling
from edgellm.speculation.proposal import ROOT
from edgellm.speculation.recycling import MAX_LEARNED, RecyclingDrafter


def logits_of(*rows):
    """Logits (L, 8) whose softmax gives some tokens these probabilities."""
    logits = np.full((len(rows), 8), -30.0, np.float32)
    for row, probabilities in zip(logits, rows, strict=True):
        for token, probability in probabilities.items():
            row[token] = np.log(probability)
    return logits


def told(drafter):
    """The proposal as (token, parent) pairs."""
    found = zip(range(9), drafter.propose(), strict=False)
    return [(draft.token, draft.parent) for _, draft in found]


def test_a_tree_of_followers_the_likeliest_first():
    drafter = RecyclingDrafter()
    drafter.begin([5, 1], Sampling())
    assert told(drafter) == []
    drafter.learn([1, 2], logits_of({2: 0.7, 3: 0.3}, {4: 0.9, 6: 0.1}))
    # 2 (0.7), 4 after 2 (0.63), 3 (0.3), 6 after 2 (0.07)
    assert told(drafter) == [(2, ROOT), (4, 0), (3, ROOT), (6, 0)]
    # the last of several counts; what is hardly likely is not remembered
    drafter.learn([1, 1], logits_of({7: 1.0}, {6: 0.999, 7: 0.001}))
    drafter.add(1)
    assert told(drafter) == [(6, ROOT)]
    drafter.learn([1], np.full((1, 8), np.nan, np.float32))
    assert told(drafter) == [(6, ROOT)]


def test_a_run_that_came_before_is_a_branch_of_the_tree():
    drafter = RecyclingDrafter()
    drafter.learn([3, 4], logits_of({4: 0.6, 7: 0.4}, {7: 1.0}))
    drafter.begin([1, 2, 3, 4, 5, 9, 1, 2, 3], Sampling())
    found = told(drafter)
    # once, though both propose it
    assert [token for token, parent in found if parent == ROOT] == [4, 7]
    after_four = found.index((4, ROOT))
    assert {token for token, parent in found if parent == after_four} == {5, 7}


def test_what_was_learned_longest_ago_is_forgotten():
    drafter = RecyclingDrafter()
    for first in range(0, MAX_LEARNED, 4096):
        drafter.learn(range(first, first + 4096), np.full((4096, 2), [0, 9], np.float32))
    drafter.learn([0, MAX_LEARNED], np.full((2, 2), [9, 0], np.float32))
    followers = []
    for token in (0, 1, 2, MAX_LEARNED):
        drafter.begin([token], Sampling())
        followers.append(told(drafter)[:1])
    assert followers == [[(0, ROOT)], [], [(1, ROOT)], [(0, ROOT)]]
