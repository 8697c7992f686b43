"""The single reads that bring extents of files into a slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.checkpoint.buffer import Extent

SECTOR = 4096
"""Bytes; direct reads begin and end at multiples of it, in the file and in memory."""

GAP = 1 << 20
"""Bytes; foreign tensors closer than this are read in one piece, and what lies between is dropped."""


@dataclass(frozen=True, slots=True)
class ReadSpan:
    """One read of a file.

    Attributes:
        file: to be read.
        offset: of its first byte in the file.
        nbytes: asked for: whole sectors, which may reach past the file's end.
        needed: bytes that must arrive.
        place: in the slot, where ``copies`` is empty; else the bytes go through a bounce buffer.
        copies: what is to be copied from the bounce buffer: offset in it, place in the slot, bytes.
    """

    file: Path
    offset: int
    nbytes: int
    needed: int
    place: int
    copies: tuple[tuple[int, int, int], ...] = ()


def plan_reads(extents: Iterable[Extent], chunk: int, *, direct: bool) -> list[ReadSpan]:
    """Cut extents into reads of at most ``chunk`` bytes, straight into the slot where file and memory are aligned alike.

    Args:
        extents: what is wanted; their places must not overlap.
        chunk: bytes; a multiple of a sector.
        direct: whether reads must be of whole sectors. The slot then has room for the whole of its
            last one.
    """
    extents = sorted(extents, key=lambda extent: (str(extent.file), extent.offset))
    if not direct:
        return [
            ReadSpan(extent.file, extent.offset + begin, length, length, extent.place + begin)
            for extent in extents
            for begin in range(0, extent.nbytes, chunk)
            for length in [min(chunk, extent.nbytes - begin)]
        ]
    end = max((extent.place + extent.nbytes for extent in extents), default=0)
    pieces: list[ReadSpan] = []
    foreign: list[Extent] = []
    for extent in extents:
        if extent.offset % SECTOR or extent.place % SECTOR:
            foreign.append(extent)
            continue
        # what the last sector holds more goes into the slot's padding
        last = extent.place + extent.nbytes == end
        whole = extent.nbytes if last else extent.nbytes // SECTOR * SECTOR
        for begin in range(0, whole, chunk):
            needed = min(chunk, whole - begin)
            pieces.append(
                ReadSpan(
                    extent.file,
                    extent.offset + begin,
                    _sectors(needed),
                    needed,
                    extent.place + begin,
                )
            )
        if whole < extent.nbytes:
            foreign.append(
                Extent(
                    extent.file, extent.offset + whole, extent.nbytes - whole, extent.place + whole
                )
            )
    return pieces + _bounced(foreign, chunk)


def _bounced(extents: Sequence[Extent], chunk: int) -> list[ReadSpan]:
    """Aligned reads that cover unaligned extents, with what is to be copied from each."""
    runs: list[list[Extent]] = []
    for extent in extents:
        last = runs[-1][-1] if runs else None
        if (
            last
            and last.file == extent.file
            and 0 <= extent.offset - (last.offset + last.nbytes) < GAP
        ):
            runs[-1].append(extent)
        else:
            runs.append([extent])
    pieces = []
    for run in runs:
        begin = run[0].offset // SECTOR * SECTOR
        end = run[-1].offset + run[-1].nbytes
        for start in range(begin, end, chunk):
            stop = min(start + chunk, end)
            copies = []
            for extent in run:
                first, last_byte = (
                    max(start, extent.offset),
                    min(stop, extent.offset + extent.nbytes),
                )
                if first < last_byte:
                    copies.append(
                        (first - start, extent.place + first - extent.offset, last_byte - first)
                    )
            if copies:
                needed = max(at + length for at, _, length in copies)
                pieces.append(
                    ReadSpan(run[0].file, start, _sectors(needed), needed, 0, tuple(copies))
                )
    return pieces


def _sectors(nbytes: int) -> int:
    return -(-nbytes // SECTOR) * SECTOR
