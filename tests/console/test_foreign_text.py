"""What a stranger wrote is shown on a terminal and obeyed nowhere; a pipe gets it as it is."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.pseudo_terminal import HOSTILE, obeyed, pseudo_terminal

from edgellm.console import diagnosis_view, error_view, progress, rows, terminal
from edgellm.console.completion_view import PlainView, completion_view
from edgellm.console.markdown_view import MarkdownView
from edgellm.console.status_line import Activity
from edgellm.console.streams import standard_streams
from edgellm.converters import ConversionStep
from edgellm.diagnostics.verify import Verdict, Verification
from edgellm.errors import EdgeLLMError, escape_controls
from edgellm.repl import chat_view

SHOWN = escape_controls(HOSTILE)


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch):
    """A terminal with colours, and wide enough for the text in a line."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "400")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def loading():
    with progress.show_loading(HOSTILE) as report:
        time.sleep(progress.DELAY)
        report(1, 2)


def converting():
    with progress.show_converting() as report:
        report(ConversionStep(file=HOSTILE, message=HOSTILE, bytes_done=1, bytes_total=2))


def verifying():
    with progress.show_verifying() as report:
        report(HOSTILE, 1, 2)


def doing():
    with progress.show_doing() as show:
        show(HOSTILE)


def completion(make_view):
    with make_view(Activity(lambda: 0)) as view:
        for character in HOSTILE:  # so that every control is cut off from what follows it
            view.add(character)
        view.add(f"\n\n- {HOSTILE}\n\n`{HOSTILE}`\n\n```{HOSTILE}\n{HOSTILE}\n```\n")


VERDICT = Verdict(HOSTILE, False, HOSTILE, HOSTILE)

SHOWN_BY = {
    "standard output": lambda: terminal.write(HOSTILE),
    "note": lambda: terminal.note(HOSTILE),
    "line on standard error": lambda: terminal.say(HOSTILE),
    "error": lambda: error_view.show_error(EdgeLLMError(HOSTILE, hint=HOSTILE)),
    "warning": lambda: error_view.show_warning(HOSTILE),
    "table": lambda: rows.show_rows([(HOSTILE, HOSTILE)], title=HOSTILE),
    "loading": loading,
    "converting": converting,
    "verifying": verifying,
    "doing": doing,
    "verification": lambda: diagnosis_view.show_verification(Verification(Path(), (VERDICT,))),
    "conversation": lambda: chat_view.show_conversation([{"role": "user", "content": HOSTILE}]),
    "conversation that goes on": lambda: chat_view.show_continued(
        [{"role": "user", "content": HOSTILE}]
    ),
    "system message": lambda: chat_view.show_system(HOSTILE),
    "plain completion": lambda: completion(PlainView),
    "markdown completion": lambda: completion(lambda it: completion_view(it, plain=False)),
}


@pytest.mark.parametrize("name", SHOWN_BY)
def test_a_terminal_shows_what_a_stranger_wrote_and_obeys_none_of_it(name):
    with pseudo_terminal() as seen:
        SHOWN_BY[name]()
    assert obeyed(seen.text) == []
    assert "\x1b[35m" not in seen.text
    assert SHOWN[:25] in seen.text


def test_rich_markup_of_a_stranger_is_shown():
    with pseudo_terminal() as seen:
        for name in ("note", "error", "table", "doing", "markdown completion"):
            SHOWN_BY[name]()
    assert seen.text.count("evil[bold]x[/bold]") >= 7


def test_the_completion_above_is_drawn_as_markdown():
    with pseudo_terminal():
        assert isinstance(completion_view(Activity(lambda: 0), plain=False), MarkdownView)


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
@pytest.mark.parametrize("compatible", ["", "0"])
def test_a_terminal_is_one_whatever_the_environment_says(monkeypatch, term, compatible):
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("TTY_COMPATIBLE", compatible)
    with pseudo_terminal() as seen:
        terminal.note(HOSTILE)
    assert obeyed(seen.text) == []
    assert SHOWN[:60] in seen.text


def test_styles_of_ours_stay():
    with pseudo_terminal() as seen:
        error_view.show_error(EdgeLLMError(HOSTILE))
    assert seen.text == f"\x1b[1;31merror: \x1b[0m{SHOWN}\n"


def test_tabs_newlines_and_every_script_stay_on_a_terminal():
    text = "a\tb\né界 \u200f\n"
    with pseudo_terminal() as seen:
        terminal.write(text)
    assert seen.text == text


def test_a_pipe_gets_the_bytes(capfdbinary):
    terminal.write(HOSTILE)
    assert capfdbinary.readouterr().out == HOSTILE.encode()


def test_json_is_the_same_document_everywhere():
    document = {"text": HOSTILE + "é\udce9"}
    with pseudo_terminal() as seen:
        terminal.write_json(document)
    assert json.loads(seen.text) == document
    assert obeyed(seen.text) == []


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_file_name_that_is_no_text_keeps_its_bytes_in_a_pipe(monkeypatch, encoding):
    data = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(data, encoding=encoding))
    with standard_streams():
        terminal.write("caf\udce9\ud800\n")
    assert data.getvalue() == b"caf\xe9?\n"


def test_a_file_name_that_is_no_text_can_be_named_in_a_plain_locale(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9\x9b"
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "edgellm", "verify", name]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: there is no model ")
    assert rb"caf\udce9\udc9b" in done.stderr
