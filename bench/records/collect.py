"""Take records as they come: put each on disk at once, and say its failure."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol, TypeVar

from edgellm.bench.records.record import Record

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

FAILED = 1
"""The exit code where a measurement failed."""

AnyRecord = TypeVar("AnyRecord", bound=Record)


class RecordSink(Protocol):
    """A place that records are put, such as a result file."""

    def add(self, record: Record, /) -> None:
        """Put one record there before this returns."""
        ...


def collect(
    measuring: Generator[AnyRecord], outputs: Sequence[RecordSink], note: Callable[[str], None]
) -> tuple[list[AnyRecord], bool]:
    """Return all records of a measurement, and whether Ctrl-C has ended it.

    Each record is in every output before the next is measured.

    Args:
        measuring: yields a record as soon as it is measured.
        outputs: where records go.
        note: is called with a sentence for each failure, once.
    """
    records: list[AnyRecord] = []
    noted: set[str] = set()
    try:
        for record in measuring:
            records.append(record)
            for output in outputs:
                output.add(record)
            if record.error:
                sentence = f"{record.backend}, {record.model}, {record.test}: {record.error}"
                if sentence not in noted:  # of every number of threads, for one
                    note(sentence)
                noted.add(sentence)
    except KeyboardInterrupt:
        return records, True
    finally:
        measuring.close()
    return records, False


def exit_code(records: Sequence[Record], *, stopped: bool) -> int:
    """Return a command's exit code: whether Ctrl-C has ended it, or anything has failed."""
    if stopped:
        return INTERRUPTED
    if any(record.error for record in records):
        return FAILED
    return 0
