"""Edgellm as a backend has its own name; the word of before is understood."""

import json

from edgellm.bench.command_options import split_backends
from edgellm.bench.report.result_files import read_records
from edgellm.bench.tables.text_tables import as_json


def test_the_former_name_on_a_command_line_means_edgellm():
    assert split_backends("mlx, cpu,edgellm,mlx-lm") == ["edgellm", "cpu", "mlx-lm"]


def test_the_former_name_in_a_file_means_edgellm(tmp_path):
    from support.bench_records import speed

    from edgellm.bench.records.kinds import ParityRecord

    parity = ParityRecord(
        model="m", backend="cpu", device="d", test="parity", environment={}, reference_backend="mlx"
    )
    document = json.loads(as_json([speed(backend="mlx"), parity]))
    (tmp_path / "old.json").write_text(json.dumps(document))
    first, second = read_records(tmp_path / "old.json")
    assert first.backend == "edgellm"
    assert (second.backend, second.reference_backend) == ("cpu", "edgellm")
