"""The streams: errors and JSON in any script, and streams that are missing."""

import io
import sys

from edgellm.console import terminal
from edgellm.errors import EdgeLLMError


def test_what_a_stranger_wrote_is_not_taken_for_markup(capsys):
    terminal.show_error(EdgeLLMError("[bold]x[/] :smile: \\[", hint="[link=y]z"))
    assert capsys.readouterr().err == "error: [bold]x[/] :smile: \\[\n\nhint: [link=y]z\n"


def test_json_is_one_document_in_any_script(capsys):
    terminal.write_json({"text": "é界\n"})
    assert capsys.readouterr().out == '{\n  "text": "é界\\n"\n}\n'


def test_missing_streams_are_replaced(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", None)
    terminal.prepare_streams()
    terminal.write("nobody reads this")
    assert sys.stdin.read() == ""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.close()
