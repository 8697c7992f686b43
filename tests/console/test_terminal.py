"""The streams: JSON in any script, and streams that are missing."""

import io
import sys

from edgellm.console import streams, terminal


def test_json_is_one_document_in_any_script(capsys):
    terminal.write_json({"text": "é界\n"})
    assert capsys.readouterr().out == '{\n  "text": "é界\\n"\n}\n'


def test_missing_streams_are_replaced(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", None)
    with streams.standard_streams():
        terminal.write("nobody reads this")
        assert sys.stdin.read() == ""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.close()
