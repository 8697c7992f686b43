"""Rows of files: objects of one line each, of several lines, and lists of them."""

import json

import pytest

from edgellm.errors import FormatError
from edgellm.row_files.reading import read_rows

ROWS = [{"text": "a\u2028b"}, {"text": "c", "more": [{"d": 1}]}, {"text": "e"}]

FORMS = {
    "lines": "".join(json.dumps(row) + "\n" for row in ROWS),
    "lines of other systems": "".join(json.dumps(row) + "\r\n" for row in ROWS),
    "without an end": "\n".join(json.dumps(row) for row in ROWS),
    "list": json.dumps(ROWS),
    "list of several lines": json.dumps(ROWS, indent=2),
    "objects of several lines": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "objects behind each other": "".join(json.dumps(row) for row in ROWS),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_read_however_they_lie(tmp_path, form):
    path = tmp_path / "rows.json"
    path.write_text(FORMS[form], encoding="utf-8", newline="")
    rows = read_rows(path, '{"text": "..."}')
    assert [row.fields for row in rows] == ROWS
    if form == "objects of several lines":
        assert [row.line for row in rows] == [1, 4, 12]


def test_an_object_of_several_lines_is_one_row(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"data": ROWS}, indent=1))
    [row] = read_rows(path, '{"text": "..."}')
    assert row.fields == {"data": ROWS}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": \n{"a": 2}\n', "line 2: the row is not valid JSON"),
        ('{"a":\n 1, "a": 2}\n', "line 1: the row is not valid JSON"),
        ('{"a": 1}{"a": 2}\n{"a": nothing}\n', "line 1: .*; line 2: "),
        ('{"a": 1}}\n', "line 1: the row is not valid JSON: Extra data"),
        ('{\n"a": 1\n}\n{\n"a" 2\n}\n', "jsonl, line 4: the row .* line 5 column 5 .char 17.$"),
        ('{\n"a": 1\n}\n{\n"a": 1, "a": 2\n}\n', "jsonl, line 4: the row .* twice"),
    ],
)
def test_what_is_no_row_is_told_by_its_line(tmp_path, text, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_rows(path, '{"text": "..."}')
