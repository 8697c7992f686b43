"""Examples before a question: which rows are shown, never one that is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from edgellm.bench.evaluation.tasks.rows.question import Question


def choose_shots(
    rows: Sequence[Question], count: int, avoided: Collection[str] = ()
) -> list[Question]:
    """Return the first rows whose groups and documents are as different as they can be.

    Each row is taken from the group that was taken least so far, so that every run of them has
    different labels; among those the first counts. The first few of a longer choice are the same.

    Args:
        rows: in the order of preference.
        count: of rows to choose, at most.
        avoided: documents that are taken only where no other is left.
    """
    left = dict(enumerate(rows))
    groups: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    texts: set[str] = set()
    chosen: list[Question] = []
    while left and len(chosen) < count:
        place = min(
            left,
            key=lambda place: (
                left[place].document in avoided,
                documents[left[place].document],
                groups[left[place].group],
                place,
            ),
        )
        row = left.pop(place)
        if row.same in texts:
            continue
        chosen.append(row)
        groups[row.group] += 1
        documents[row.document] += 1
        texts.add(row.same)
    return chosen


def apart_from(rows: Iterable[Question], others: Sequence[Question]) -> list[Question]:
    """Return the rows that share neither id nor text with any of the others."""
    ids = {row.id for row in others if not row.is_unnamed}
    texts = {row.same for row in others}
    return [row for row in rows if row.id not in ids and row.same not in texts]
