"""Result files: written record by record, and read back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bench_records import speed, speed_records

from edgellm.bench.records.text_tables import as_json
from edgellm.bench.report.result_files import ResultFile, read_records, write_records
from edgellm.errors import BackendError, ConfigError, FormatError


@settings(max_examples=25, deadline=None)
@given(found=st.lists(speed_records, max_size=4))
def test_what_is_written_is_read_back(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    expected = json.loads(as_json(found))["records"]
    for suffix in ("json", "jsonl"):
        output = ResultFile(folder / f"records.{suffix}")
        for number, record in enumerate(found, 1):
            output.add(record.as_dict())
            assert len(read_records(output.path)) == number, "each one is on disk before the next"
        if found:
            assert read_records(output.path) == expected
        write_records(output.path, expected)
        assert read_records(output.path) == expected
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".jsonl"], (
        "nothing is left over"
    )


def test_a_file_of_something_else_is_refused(tmp_path):
    for number, text in enumerate(
        [
            "",
            "{",
            "[]",
            '{"schema": 1, "records": [{}]}',
            '{"schema": 99, "records": []}',
            '{"schema": 1, "records": 3}',
            "\udc80",
        ]
    ):
        path = tmp_path / f"{number}.json"
        path.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(FormatError, match="holds no records"):
            read_records(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_records(tmp_path / "nothing.json")


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    output = ResultFile(tmp_path / "cut.jsonl")
    output.add(speed().as_dict())
    with output.path.open("a") as file:
        file.write('{"schema": 1, "mod')
    assert len(read_records(output.path)) == 1


def test_what_was_measured_before_stays_until_the_first_record_comes(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("before\n")
    output = ResultFile(path)
    assert path.read_text() == "before\n"
    output.add(speed().as_dict())
    output.add(speed().as_dict())
    assert len(read_records(path)) == 2


def test_a_disk_that_refuses_is_an_error(tmp_path):
    output = ResultFile(tmp_path / "out.json")
    (tmp_path / "out.json").mkdir()
    with pytest.raises(BackendError, match="cannot be written"):
        output.add(speed().as_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_strangers_half_download_beside_a_result_stays(tmp_path, suffix):
    beside = tmp_path / f"result{suffix}.partial"
    beside.write_text("half a download")
    write_records(tmp_path / f"result{suffix}", [speed().as_dict()])
    assert beside.read_text() == "half a download"
