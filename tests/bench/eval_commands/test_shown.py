"""Evaluations on the screen: tables, sentences and a picture, from files of several machines."""

import json

import pytest
from support.bench_records import MACHINE, evaluation

from edgellm.bench.eval_commands.compare import compare
from edgellm.bench.report.result_files import read_records, write_records
from edgellm.errors import FormatError

RIGHT = [1, 1, 1, 0] * 25


@pytest.fixture
def files(tmp_path):
    """Two machines' files: the first with 16 bits, the other with 4 bits and worse answers."""
    there = MACHINE | {"chip": "Another"}
    runs = {
        "mac.json": evaluation(RIGHT, model="llama-16bit"),
        "server.jsonl": evaluation(
            [0] * 40 + RIGHT[40:],
            model="llama-4bit",
            bits=4,
            model_bytes=4_000_000,
            environment=there,
            device="Another",
        ),
    }
    for name, record in runs.items():
        write_records(tmp_path / name, [record])
    return [tmp_path / name for name in runs]


def test_runs_of_two_machines_are_paired_and_drawn(files, capsys):
    assert compare(files) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    table, _, picture = shown.partition("over weights in memory")
    assert "worse" in table
    assert "-30.0 (-39.0 to -21.0)" in table
    assert "llama-4bit, 4.0 MB: 45.0  *" in picture


def test_the_same_as_json_and_as_a_page(files, tmp_path, capsys):
    page = tmp_path / "both.html"
    assert compare(files, json=True, output=[page]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["model"] for one in document["records"]] == ["llama-16bit", "llama-4bit"]
    assert "llama-4bit" in page.read_text()
    assert [len(read_records(path)) for path in files] == [1, 1]


def test_a_file_without_evaluations_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"schema": 1, "records": []}')
    with pytest.raises(FormatError, match="no records"):
        compare([path])
