"""Waves of pairs that go through the model together, by what they begin with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgellm.scoring.pairs import Pair
from edgellm.scoring.workspace import Workspace

MIN_SHARED = 16
"""Tokens of a common prefix from which copies of it cost less than computing it again."""

MIN_SHARE = 0.6
"""Of a wave's common prefix that a group must have, too, to join the wave."""


@dataclass(frozen=True, slots=True)
class Group:
    """Pairs with one context, which is computed once.

    Attributes:
        context: their context.
        places: theirs among all pairs.
        pairs: the pairs.
    """

    context: tuple[int, ...]
    places: list[int]
    pairs: list[Pair]

    @property
    def is_alone(self) -> bool:
        """Whether there is one pair, whose continuation goes along with its context."""
        return len(self.pairs) == 1

    @property
    def room(self) -> int:
        """Tokens of the longest pair."""
        return max(len(pair.tokens) for pair in self.pairs)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens that go through the model first; nothing is asked after a pair's last one."""
        if self.is_alone:
            return self.pairs[0].tokens[:-1]
        return self.context


@dataclass(slots=True)
class Wave:
    """Groups that go through the model together.

    Attributes:
        groups: the groups.
        shared: tokens at the beginning that all contexts have in common, less than any has; 0
            where they are too few to be worth it.
    """

    groups: list[Group]
    shared: int


def waves(pairs: Sequence[Pair], workspace: Workspace) -> Iterator[Wave]:
    """Yield waves for which there is memory; pairs with the same beginnings go together.

    A wave has at least one group.
    """
    groups: list[Group] = []
    common = bytes_used = 0
    for group in _groups(pairs, workspace):
        joined = len(group.context) - 1
        if groups:
            joined = min(common, joined, common_prefix(groups[0].context, group.context))
        nbytes = _kv_bytes(group, workspace)
        together = [*groups, group]
        shared = _worth(joined, together)
        tokens = sum(len(one.tokens) - shared for one in together)
        fits = bytes_used + nbytes + workspace.context.kv_bytes(shared) <= _budget(workspace)
        goes_on = len(groups) == 1 or joined >= MIN_SHARE * common or common < MIN_SHARED
        if groups and not (fits and goes_on and tokens <= workspace.wave_tokens):
            yield Wave(groups, _worth(common, groups))
            together, joined, bytes_used = [group], len(group.context) - 1, 0
        groups, common = together, joined
        bytes_used += nbytes
    if groups:
        yield Wave(groups, _worth(common, groups))


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with in common."""
    length = 0
    for mine, theirs in zip(left, right, strict=False):
        if mine != theirs:
            break
        length += 1
    return length


def _groups(pairs: Sequence[Pair], workspace: Workspace) -> Iterator[Group]:
    """Yield groups in the order of their contexts' tokens, so that those alike are neighbors."""
    together = defaultdict(list)
    for place, pair in enumerate(pairs):
        together[pair.context].append(place)
    for context, places in sorted(together.items()):
        group = Group(context, places, [pairs[place] for place in places])
        if group.is_alone or _kv_bytes(group, workspace) <= _budget(workspace):
            yield group
            continue
        # there is no room for a context and a copy of it
        for place in places:
            yield Group(context, [place], [pairs[place]])


def _kv_bytes(group: Group, workspace: Workspace) -> int:
    """Return the bytes of a group's caches, with a continuation's if that goes apart."""
    nbytes = workspace.context.kv_bytes(group.room)
    if group.is_alone:
        return nbytes
    return 2 * nbytes


def _budget(workspace: Workspace) -> int:
    return workspace.context.plan.kv_budget


def _worth(common: int, groups: Sequence[Group]) -> int:
    """Return the tokens of a common prefix that are computed once; 0 where that gains nothing."""
    if len(groups) == 1 or common < MIN_SHARED:
        return 0
    return common
