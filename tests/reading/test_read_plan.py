"""The reads of extents bring every byte exactly once, and nothing onto another's place."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgellm.checkpoint.buffer import Extent
from edgellm.reading.read_plan import GAP, SECTOR, plan_reads


@st.composite
def layouts(draw):
    """Extents of two files that do not overlap in a buffer; aligned or not, near or far apart."""
    extents, place = [], 0
    offsets = {Path("a"): 0, Path("b"): 0}
    for _ in range(draw(st.integers(1, 8))):
        path = draw(st.sampled_from(sorted(offsets)))
        offset = offsets[path] + draw(st.sampled_from([0, 1, 16, 5000, GAP - 1, GAP, GAP + 4096]))
        if draw(st.booleans()):
            offset = -(-offset // SECTOR) * SECTOR
        if draw(st.booleans()):
            place = -(-place // SECTOR) * SECTOR
        nbytes = draw(st.integers(1, 50_000) | st.sampled_from([SECTOR, 4 * SECTOR, 16384 * 3]))
        extents.append(Extent(path, offset, nbytes, place))
        offsets[path] = offset + nbytes
        place += nbytes + draw(st.sampled_from([0, 0, 16, 777]))
    return draw(st.permutations(extents))


@given(layouts(), st.sampled_from([SECTOR, 16384, 1 << 20]), st.booleans())
def test_reads_bring_every_byte_exactly_once(extents, read_size, direct):
    end = max(extent.buffer_offset + extent.nbytes for extent in extents)
    times = np.zeros(-(-end // SECTOR) * SECTOR, np.uint8)
    origin = np.zeros(len(times), np.int64)
    for read in plan_reads(extents, read_size, direct=direct):
        assert 0 < read.needed_bytes <= read.nbytes <= read_size
        if direct:
            assert read.offset % SECTOR == read.nbytes % SECTOR == 0
            assert read.copies or read.buffer_offset % SECTOR == 0
        for begin, place, length in read.copies or [(0, read.buffer_offset, read.needed_bytes)]:
            assert begin + length <= read.needed_bytes
            times[place : place + length] += 1
            origin[place : place + length] = np.arange(length) + read.offset + begin
        # what a direct read brings beyond its need must fall on nobody's bytes
        if not read.copies:
            beyond = slice(read.buffer_offset + read.needed_bytes, read.buffer_offset + read.nbytes)
            assert beyond.start in {beyond.stop, end}
    wanted = np.zeros(len(times), np.uint8)
    for extent in extents:
        span = slice(extent.buffer_offset, extent.buffer_offset + extent.nbytes)
        wanted[span] += 1
        assert (origin[span] == np.arange(extent.nbytes) + extent.offset).all()
    assert (times == wanted).all()
