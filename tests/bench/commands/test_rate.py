"""`edgellm bench rate`: a person scores answers."""

import io

import pytest
from support.bench_records import query

from edgellm.bench.queries.rating import RatedFile
from edgellm.bench.report.result_files import write_records
from edgellm.cli.app import main

RECORDS = [
    query(question="Why?", answer="Because."),
    query(question="Who?", answer="Me."),
]


@pytest.mark.parametrize(
    ("typed", "kept"), [("7\nq\n", 1), ("0\nten\n11\n8\n", 1), ("9\ns\n", 1), ("5\n6\n", 2)]
)
def test_a_person_scores_skips_and_stops(tmp_path, monkeypatch, capsys, typed, kept):
    file = tmp_path / "answers.json"
    write_records(file, RECORDS)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert main(["bench", "rate", str(file)]) == 0
    assert f"{kept} answer{'s' if kept > 1 else ''} scored" in capsys.readouterr().err
    assert len(RatedFile(file).unrated()) == 2 - kept
