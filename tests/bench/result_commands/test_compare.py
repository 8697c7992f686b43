"""`edgellm bench compare` and `report`: what they print of result files."""

import json

from support.bench_records import speed

from edgellm.bench.comparison.compare import Change
from edgellm.bench.report.result_files import write_records
from edgellm.bench.result_commands.compare import describe_change
from edgellm.cli.app import main


def test_a_change_in_words():
    assert describe_change(None) == "-"
    assert describe_change(Change(1.5)) == "1.50 x (single sample)"
    assert describe_change(Change(1.5, 1.4, 1.6, 0.95)) == "1.50 x (1.40 to 1.60)"
    assert describe_change(Change(1.0, 0.9, 1.1, 0.95)) == "1.00 x (0.90 to 1.10, within noise)"


def test_compare_and_report_on_the_command_line(tmp_path, capsys):
    first, second, html = tmp_path / "first.json", tmp_path / "second.jsonl", tmp_path / "both.html"
    write_records(first, [speed(), speed(backend="cpu")])
    write_records(second, [speed(seconds=(0.5, 0.6, 0.55)), speed(backend="cpu")])
    assert main(["bench", "compare", str(first), str(second)]) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["backend", "first", "second", "change", "second"]
    assert "2.00 x" in table
    assert "within noise" in table
    assert main(["bench", "compare", str(first), str(second), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["files"] == ["first", "second"]
    assert document["comparisons"][1]["changes"][0]["within_noise"] is True
    assert main(["bench", "report", str(first), str(second), "--html", str(html)]) == 0
    assert "<h2>Generation</h2>" in html.read_text()
    assert main(["bench", "compare", str(first)]) == 2
    assert main(["bench", "report", str(first), "--html", "page.txt"]) == 2


def test_a_file_of_no_records_is_compared_with_nothing(tmp_path, capsys):
    write_records(tmp_path / "some.json", [speed()])
    write_records(tmp_path / "none.json", [])
    assert main(["bench", "compare", str(tmp_path / "some.json"), str(tmp_path / "none.json")]) == 1
    assert "none.json holds no records: it is empty" in capsys.readouterr().err
