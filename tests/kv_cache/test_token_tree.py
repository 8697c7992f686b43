"""Trees of tokens in a cache: branch by branch, and a path can be put back in place."""

from hypothesis import given
from hypothesis import strategies as st

from edgellm.kv_cache.token_tree import branches, height, moves, room


@st.composite
def trees(draw):
    """Levels of a tree, and a path in it from the root."""
    levels = [0]
    for _ in range(draw(st.integers(0, 15))):
        levels.append(draw(st.integers(1, levels[-1] + 1)))
    path = [draw(st.integers(0, len(levels) - 1))]
    while path[0]:
        above = [place for place in range(path[0]) if levels[place] == levels[path[0]] - 1]
        path.insert(0, above[-1])
    return levels, path


@given(tree=trees())
def test_every_token_sees_its_parents_and_every_path_can_be_kept(tree):
    levels, path = tree
    cache = [None] * room(levels)
    parents = {}
    for branch in branches(levels):
        places = range(branch.first, branch.first + branch.length)
        for place in places:
            cache[branch.level + place - branch.first] = place
            parents[place] = cache[: levels[place]]
        for place in places[branch.length - branch.displaced :]:
            cache[height(levels) + place] = place
    assert sorted(parents) == list(range(len(levels)))
    for depth, place in enumerate(path):
        assert parents[place] == path[:depth]
    for source, target in moves(levels, path):
        cache[target] = cache[source]
    assert cache[: len(path)] == path
