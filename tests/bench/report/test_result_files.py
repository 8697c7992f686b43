"""Result files: written record by record, and read back."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bench_records import speed, speed_records
from support.disk_limits import file_size_limit

from edgellm.bench.report.result_files import (
    ResultFile,
    open_outputs,
    read_records,
    read_some_records,
    write_records,
)
from edgellm.bench.tables.text_tables import as_json
from edgellm.cli.app import main
from edgellm.errors import ConversionError, FormatError, ReadError


@settings(max_examples=25, deadline=None)
@given(found=st.lists(speed_records, max_size=4))
def test_what_is_written_is_read_back(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    for suffix in ("json", "jsonl"):
        output = ResultFile(folder / f"records.{suffix}")
        for number, record in enumerate(found, 1):
            output.add(record)
            assert len(read_records(output.path)) == number, "each one is on disk before the next"
        if found:
            assert read_records(output.path) == found
        write_records(output.path, found)
        assert read_records(output.path) == found
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".jsonl"], (
        "nothing is left over"
    )


LLAMA_BENCH = [{"build_commit": "1a2b3c", "model_filename": "m.gguf", "avg_ts": 12.5, "n_gen": 128}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ("\udc80", "not UTF-8"),
        ('{"schema": 1}', "no list of records"),
        ('{"schema": 1, "records": 3}', "no list of records"),
        ('{"schema": 1, "comparisons": []}', "what bench compare has found"),
        ('{"schema": 2, "records": []}', "a newer edgellm's"),
        ('{"schema": null, "records": []}', "no records of edgellm bench"),
        ('{"results": []}', "no records of edgellm bench"),
        (json.dumps(LLAMA_BENCH), "is llama-bench's"),
        ('{"schema": 1, "records": [{"seconds": [NaN]}]}', "NaN is not a number"),
        ('{"schema": 1, "records": [{"seconds": [1e999]}]}', "too large"),
        ('{"schema": 1, "schema": 1, "records": []}', "occurs twice"),
        ("[" * 100_000, "nested"),
    ],
)
def test_a_file_of_something_else_is_refused_with_a_next_step(tmp_path, text, said):
    path = tmp_path / "x.json"
    data = text.encode(errors="surrogateescape")
    path.write_bytes(data + b"\n")
    with pytest.raises(FormatError) as raised:
        read_records(path)
    assert said in raised.value.message
    assert raised.value.message.startswith(str(path))
    assert raised.value.hint


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": None}, "model is None, and must be a text"),
        ({"seconds": [1.0, "x"]}, "seconds[1] is 'x', and must be a number 0, or from 1e-15"),
        ({"seconds": {}}, "seconds is {}, and must be a list"),
        ({"seconds": [True]}, "seconds[0] is True"),
        ({"seconds": [-1.0]}, "seconds[0] is -1.0"),
        ({"seconds": [10**400]}, "seconds[0] is 1000"),
        ({"seconds": [1e-320]}, "seconds[0] is 1e-320"),
        ({"threads": 0}, "threads is 0, and must be a whole number from 1"),
        ({"tokens": 1.5}, "tokens is 1.5, and must be a whole number"),
        ({"batch": None}, "batch is None"),
        ({"error": ["no"]}, "error is ['no'], and must be a text"),
        ({"environment": []}, "environment is [], and must be an object"),
        ({"environment": {"cores": "many"}}, "environment.cores is 'many'"),
        ({"environment": {"packages": {"mlx": 1}}}, "environment.packages.mlx is 1"),
        ({"kind": "sped"}, "kind is 'sped', and must be one of record, speed"),
        ({"kind": []}, "kind is []"),
        ({"device": ...}, "device is missing, and must be a text"),
        ({"environment": ...}, "environment is missing, and must be an object"),
    ],
)
def test_an_error_names_file_record_and_field_with_what_was_found_and_expected(
    tmp_path, changed, said
):
    document = json.loads(as_json([speed()]))
    damaged = document["records"][0] | changed
    damaged = {name: value for name, value in damaged.items() if value is not ...}
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(document | {"records": [*document["records"], damaged]}))
    with pytest.raises(FormatError) as raised:
        read_records(path)
    assert raised.value.message.startswith(f"{path}, record 2: {said}")
    path = tmp_path / "damaged.jsonl"
    lines = [{"schema": 1} | record for record in (*document["records"], damaged)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(FormatError) as raised:
        read_records(path)
    assert raised.value.message.startswith(f"{path}, record 2: {said}")


def test_what_is_no_file_or_too_large_is_refused(tmp_path):
    with pytest.raises(ReadError, match="cannot be read"):
        read_records(tmp_path / "nothing.json")
    with pytest.raises(FormatError, match="not a regular file"):
        read_records(tmp_path)
    with pytest.raises(ReadError, match="cannot be read"):
        read_records(tmp_path / ("n" * 300 + ".json"))
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(FormatError, match="larger than"):
        read_records(large)
    empty = tmp_path / "empty.json"
    empty.touch()
    with pytest.raises(FormatError, match="it is empty"):
        read_some_records(empty)


def test_numbers_of_other_writers_are_taken(tmp_path):
    """As jq and pandas write them: 1 for 1.0, and 32.0 for 32."""
    document = json.loads(as_json([speed()]))
    document["records"][0] |= {"tokens": 32.0, "seconds": [1, 2]}
    path = tmp_path / "other.json"
    path.write_text(json.dumps(document))
    assert read_records(path) == [speed(tokens=32, seconds=(1.0, 2.0))]


def test_a_file_of_the_first_version_is_opened(tmp_path):
    """Its records have no kind, and fields that no other has."""
    record = json.loads(as_json([speed()]))["records"][0]
    del record["kind"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"schema": 1, "records": [record]}))
    (found,) = read_records(path)
    assert found.tokens_per_second == speed().tokens_per_second
    assert found.unknown["depth"] == 0


def test_what_a_newer_version_has_added_is_kept_and_figures_are_derived_anew(tmp_path):
    record = json.loads(as_json([speed()]))["records"][0]
    record |= {"added_later": {"by": [1, "x"]}, "tokens_per_second": "fast", "spread": {}}
    path = tmp_path / "newer.jsonl"
    path.write_text(json.dumps({"schema": 1} | record) + "\n")
    records = read_records(path)
    write_records(path, records)
    written = json.loads(path.read_text())
    assert written["added_later"] == {"by": [1, "x"]}
    assert written["tokens_per_second"] == speed().tokens_per_second


def test_a_whole_last_line_without_its_end_counts(tmp_path):
    path = tmp_path / "joined.jsonl"
    path.write_text("\n".join(json.dumps({"schema": 1} | speed().as_dict()) for _ in range(2)))
    assert len(read_records(path)) == 2


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    output = ResultFile(tmp_path / "cut.jsonl")
    output.add(speed())
    with output.path.open("a") as file:
        file.write('{"schema": 1, "mod')
    assert len(read_records(output.path)) == 1


def test_what_was_measured_before_stays_until_the_first_record_comes(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("before\n")
    output = ResultFile(path)
    assert path.read_text() == "before\n"
    output.add(speed())
    output.add(speed())
    assert len(read_records(path)) == 2


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_disk_that_refuses_is_an_error(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    output = ResultFile(path)
    path.mkdir()
    with pytest.raises(ConversionError, match="cannot be written"):
        output.add(speed())
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ConversionError, match="not a regular file"):
        ResultFile(path)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_record_that_finds_no_room_leaves_those_before_it(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    output = ResultFile(path)
    output.add(speed())
    before = path.read_bytes()
    with (
        file_size_limit(len(before) + 10),
        pytest.raises(ConversionError, match=f"no space left for {path}"),
    ):
        output.add(speed())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_two_runs_do_not_write_one_file(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("before\n")
    with open_outputs([path, path]) as outputs:
        assert len(outputs) == 1
        second = open_outputs([tmp_path / "other.json", path])
        with pytest.raises(ConversionError, match="is being written by edgellm bench"):
            second.__enter__()
    assert path.read_text() == "before\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_strangers_half_download_beside_a_result_stays(tmp_path, suffix):
    beside = tmp_path / f"result{suffix}.partial"
    beside.write_text("half a download")
    write_records(tmp_path / f"result{suffix}", [speed()])
    assert beside.read_text() == "half a download"


@pytest.mark.parametrize("name", ["n" * 300 + ".json", "n" * 300 + ".jsonl", "n" * 300 + "/x.json"])
def test_a_name_that_is_too_long_is_an_error_before_anything_is_measured(tmp_path, capsys, name):
    assert main(["bench", "queries", "stories", "--output", str(tmp_path / name)]) == 1
    shown = capsys.readouterr().err
    assert "cannot be written" in shown
    assert "hint: " in shown
