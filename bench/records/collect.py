"""Records as they come: kept, put on disk at once, and their failures said."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from edgellm.bench.records.record import Record
    from edgellm.bench.report.result_files import Output

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

FAILED = 1

Found = TypeVar("Found", bound="Record")


def collect(
    found: Generator[Found], outputs: Sequence[Output], note: Callable[[str], None]
) -> tuple[list[Found], bool]:
    """The records that come, each on disk before the next is measured, and whether Ctrl-C has ended them."""
    records: list[Found] = []
    try:
        for record in found:
            records.append(record)
            written = record.as_dict()
            for output in outputs:
                output.add(written)
            if record.error:
                note(f"{record.backend}, {record.model}, {record.test}: {record.error}")
    except KeyboardInterrupt:
        return records, True
    finally:
        found.close()
    return records, False


def exit_code(records: Sequence[Record], *, stopped: bool) -> int:
    """What a command ends with: whether Ctrl-C has ended it, or anything has failed."""
    if stopped:
        return INTERRUPTED
    return FAILED if any(record.error for record in records) else 0
