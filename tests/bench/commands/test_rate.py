"""`edgellm bench rate`: a person scores answers."""

import io

import pytest

from edgellm.bench.queries.rating import RatedFile
from edgellm.bench.report.result_files import write_records
from edgellm.cli.app import main

COMMON = {"backend": "mlx", "test": "query", "seconds": [1.0], "environment": {}}


RECORDS = [
    COMMON | found
    for found in (
        {"model": "a", "question": "Why?", "answer": "Because.", "score": None},
        {"model": "b", "question": "Why?", "answer": "Because.", "score": None},
        {"model": "b", "question": "Who?", "answer": "Me.", "score": None},
        {"model": "b", "question": "Who?", "answer": None, "score": None, "error": "it broke"},
        {"model": "c", "question": "Who?", "answer": "You.", "score": 3, "scored_by": "person"},
        {"model": "c", "test": "pp128"},
    )
]


@pytest.fixture(params=["json", "jsonl"])
def file(request, tmp_path):
    path = tmp_path / f"answers.{request.param}"
    write_records(path, RECORDS)
    return path


@pytest.mark.parametrize(
    ("typed", "kept"), [("7\nq\n", 1), ("0\nten\n11\n8\n", 1), ("9\ns\n", 1), ("5\n6\n", 2)]
)
def test_a_person_scores_skips_and_stops(file, monkeypatch, capsys, typed, kept):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert main(["bench", "rate", str(file)]) == 0
    assert f"{kept} answer{'s' if kept > 1 else ''} scored" in capsys.readouterr().err
    assert len(RatedFile(file).unrated()) == 2 - kept
