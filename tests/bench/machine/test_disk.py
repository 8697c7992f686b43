"""Plain reads of the disk, in every combination of threads and sizes."""

import pytest

from edgellm.bench.machine.disk import files_of, measure_disk_sweep
from edgellm.bench.tables.columns import DISK_COLUMNS
from edgellm.bench.tables.text_tables import as_table
from edgellm.errors import ConfigError


def test_the_disk_is_measured_in_every_combination(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(3 << 20))
    records = measure_disk_sweep(tmp_path, threads=[1, 2], read_sizes=[1 << 20], repeats=2)
    assert [(record.threads, record.chunk_bytes) for record in records] == [
        (1, 1 << 20),
        (2, 1 << 20),
    ]
    assert all(len(record.seconds) == 2 and record.raw_read_gbps > 0 for record in records)
    assert all(record.read_bytes == 3 << 20 for record in records)
    assert len(as_table(records, DISK_COLUMNS).splitlines()) == 3
    assert files_of(tmp_path / "weights") == [tmp_path / "weights"]
    with pytest.raises(ConfigError, match="neither a file of at least a megabyte"):
        files_of(tmp_path / "nothing")
