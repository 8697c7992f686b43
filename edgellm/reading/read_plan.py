"""The single reads that bring extents of files into a buffer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edgellm.checkpoint.buffer import Extent

SECTOR = 4096
"""Bytes; direct reads begin and end at multiples of it, in the file and in memory."""

GAP = 1 << 18
"""Bytes; extents closer than this share a read, and what lies between them is dropped.

Of rows of matrices, four times as many bytes would bring up to a tenth that nobody needs."""


class Copy(NamedTuple):
    """Bytes that go from a bounce buffer to their place."""

    source: int
    target: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class ReadSpan:
    """One read of a file.

    Attributes:
        file: to be read.
        offset: the offset of its first byte in the file.
        nbytes: asked for: whole sectors, which may reach past the file's end.
        needed_bytes: bytes that must arrive.
        buffer_offset: where they go, if ``copies`` is empty; else they go through a bounce buffer.
        copies: from the bounce buffer to the buffer.
    """

    file: Path
    offset: int
    nbytes: int
    needed_bytes: int
    buffer_offset: int
    copies: tuple[Copy, ...] = ()


def plan_reads(
    extents: Iterable[Extent], read_size: int, *, direct: bool, bounce_size: int | None = None
) -> list[ReadSpan]:
    """Cut extents into reads, straight into the buffer where file and memory are aligned alike.

    Args:
        extents: what is wanted; they must not overlap in the buffer.
        read_size: bytes of a read at most; whole sectors.
        direct: whether reads must be of whole sectors. The buffer then has room for the whole of
            its last one.
        bounce_size: bytes of a read through a bounce buffer at most; None: as the others.
    """
    extents = sorted(extents, key=lambda extent: (str(extent.file), extent.offset))
    if not direct:
        return [read for extent in extents for read in _straight_reads(extent, read_size)]
    buffer_end = max((extent.buffer_offset + extent.nbytes for extent in extents), default=0)
    reads: list[ReadSpan] = []
    unaligned: list[Extent] = []
    for extent in extents:
        if extent.offset % SECTOR or extent.buffer_offset % SECTOR:
            unaligned.append(extent)
            continue
        straight_bytes = extent.nbytes
        # A last sector that is not whole brings more than is wanted. After the last extent that
        # goes into the buffer's padding; elsewhere it would fall on somebody's bytes.
        if extent.buffer_offset + extent.nbytes != buffer_end:
            straight_bytes = extent.nbytes // SECTOR * SECTOR
        straight, rest = _split(extent, straight_bytes)
        reads += _straight_reads(straight, read_size, direct=True)
        if rest.nbytes:
            unaligned.append(rest)
    return reads + _bounced_reads(unaligned, bounce_size or read_size)


def _split(extent: Extent, nbytes: int) -> tuple[Extent, Extent]:
    """Return an extent's first bytes, and the rest."""
    first = Extent(extent.file, extent.offset, nbytes, extent.buffer_offset)
    rest = Extent(
        extent.file, extent.offset + nbytes, extent.nbytes - nbytes, extent.buffer_offset + nbytes
    )
    return first, rest


def _straight_reads(extent: Extent, read_size: int, *, direct: bool = False) -> Iterator[ReadSpan]:
    """Yield the reads of an extent that go straight into the buffer."""
    for begin in range(0, extent.nbytes, read_size):
        needed_bytes = min(read_size, extent.nbytes - begin)
        yield ReadSpan(
            extent.file,
            extent.offset + begin,
            _whole_sectors(needed_bytes) if direct else needed_bytes,
            needed_bytes,
            extent.buffer_offset + begin,
        )


def _bounced_reads(extents: Sequence[Extent], read_size: int) -> list[ReadSpan]:
    """Return aligned reads that cover unaligned extents, with what is to be copied from each."""
    reads = []
    for run in _runs(extents):
        begin = run[0].offset // SECTOR * SECTOR
        end = run[-1].offset + run[-1].nbytes
        for start in range(begin, end, read_size):
            copies = _copies(run, start, min(start + read_size, end))
            # a read of nothing but the gap between two extents is left out
            if copies:
                needed_bytes = max(copy.source + copy.nbytes for copy in copies)
                nbytes = _whole_sectors(needed_bytes)
                reads.append(ReadSpan(run[0].file, start, nbytes, needed_bytes, 0, copies))
    return reads


def _runs(extents: Sequence[Extent]) -> list[list[Extent]]:
    """Group extents, which are in the order of their files, where they are near each other."""
    runs: list[list[Extent]] = []
    for extent in extents:
        if runs:
            last = runs[-1][-1]
            distance = extent.offset - (last.offset + last.nbytes)
            if last.file == extent.file and 0 <= distance < GAP:
                runs[-1].append(extent)
                continue
        runs.append([extent])
    return runs


def _copies(run: Sequence[Extent], start: int, stop: int) -> tuple[Copy, ...]:
    """Return what is to be copied from a read of the file's bytes from ``start`` to ``stop``."""
    copies = []
    for extent in run:
        first = max(start, extent.offset)
        last = min(stop, extent.offset + extent.nbytes)
        if first < last:
            target = extent.buffer_offset + first - extent.offset
            copies.append(Copy(first - start, target, last - first))
    return tuple(copies)


def _whole_sectors(nbytes: int) -> int:
    return -(-nbytes // SECTOR) * SECTOR
