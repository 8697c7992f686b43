"""Draft tokens as the rows of a pass: the last token of the sequence, and a tree below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgellm.speculation.proposal import ROOT, DraftToken


class DraftTree:
    """Draft tokens in depth-first order, behind their root.

    Of those with the same parent the likeliest is last: it then stays in the KV cache where it is.

    Args:
        drafted: the draft tokens, each with its parent.

    Attributes:
        drafted: the draft tokens in the order of their rows; row 0 is the root's.
        levels: of each row (``kv_cache.token_tree``).
    """

    def __init__(self, drafted: Sequence[DraftToken]) -> None:
        children: dict[int | None, list[int]] = {}
        for place, draft in enumerate(drafted):
            children.setdefault(draft.parent, []).append(place)
        self.drafted: list[DraftToken] = []
        self.levels: list[int] = [0]
        self._children: list[list[int]] = [[]]
        # the places still to be visited, with level and row of the parent
        waiting = [(place, 1, 0) for place in children.get(ROOT, ())]
        while waiting:
            place, level, parent_row = waiting.pop()
            self._children[parent_row].append(len(self.levels))
            row = len(self.levels)
            self.drafted.append(drafted[place])
            self.levels.append(level)
            self._children.append([])
            waiting += [(child, level + 1, row) for child in children.get(place, ())]

    @property
    def is_chain(self) -> bool:
        """Whether each row follows the one before."""
        return self.levels[-1] == len(self.drafted)

    def children(self, row: int) -> list[tuple[int, DraftToken]]:
        """Return the draft tokens that may follow a row, with their rows."""
        return [(child, self.drafted[child - 1]) for child in self._children[row]]

    def child(self, row: int, token: int) -> int | None:
        """Return the row of a token that follows another row; None where it was not drafted."""
        for child, draft in self.children(row):
            if draft.token == token:
                return child
        return None


def likeliest_chain(drafted: Sequence[DraftToken]) -> list[DraftToken]:
    """Return the first draft token, the first that follows it, and so on, each with its parent."""
    chain: list[DraftToken] = []
    last = ROOT
    for place, draft in enumerate(drafted):
        if draft.parent == last:
            chain.append(replace(draft, parent=len(chain) - 1))
            last = place
    return chain
