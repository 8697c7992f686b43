"""What is typed at the prompt of the chat screen: keys, completion, and history."""

import os
import signal

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from support.disk_limits import file_size_limit
from support.keyboard import keyboard

from edgellm.repl.line_editor import slash_completer
from edgellm.repl.repl import FILE_COMMANDS, described_commands


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    """A history of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("hello\r", "hello"),
        ("one\x1b\rtwo\r", "one\ntwo"),
        ("one\\\rtwo\r", "one\ntwo"),
        ("\x1b[200~one\r\n  two\nthree\x1b[201~\r", "one\n  two\nthree"),
        ("helo\x1b[D\x1b[Dl\r", "hello"),
        ("hello there\x17you\r", "hello you"),
    ],
)
def test_what_is_typed_is_what_is_asked(keys, text):
    with keyboard(keys) as editor:
        assert editor.ask() == text


@pytest.mark.parametrize("asks", ["ask", "agrees"])
def test_who_heard_of_signals_before_does_so_afterwards(asks):
    heard, told = os.pipe()
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told)
    try:
        with keyboard("yes\r") as editor:
            assert editor.ask() == "yes" if asks == "ask" else editor.agrees("Really?")
        assert signal.set_wakeup_fd(before) == told
    finally:
        signal.set_wakeup_fd(before)
        os.close(heard)
        os.close(told)


def test_commands_and_files_are_completed(tmp_path):
    (tmp_path / "talk.json").touch()
    completer = slash_completer(described_commands(), FILE_COMMANDS)

    def completed(text):
        document = Document(text)
        found = completer.get_completions(document, CompleteEvent())
        return [text[: len(text) + one.start_position] + one.text for one in found]

    assert completed("/s") == ["/system ", "/save ", "/stats"]
    assert completed("/hel") == ["/help"]
    assert completed(f"/load {tmp_path}/ta") == [f"/load {tmp_path}/talk.json"]
    assert completed("hel") == completed("/system ") == []


def test_history_is_kept_for_the_next_chat_and_for_nobody_else(tmp_path):
    with keyboard("first\r") as editor:
        editor.ask()
    with keyboard("\x1b[A\r") as editor:
        assert editor.ask() == "first"
    files = [path for path in tmp_path.rglob("history") if path.is_file()]
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600]


def test_a_chat_goes_on_where_no_history_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with keyboard("hello\r") as editor:
        assert editor.ask() == "hello"


def test_a_chat_goes_on_where_the_disk_fills_up(tmp_path):
    with keyboard("one\rtwo\r") as editor:
        assert editor.ask() == "one"
        with file_size_limit(1):
            assert editor.ask() == "two"


@pytest.mark.parametrize("kind", ["pipe", "huge"])
def test_a_history_that_is_no_history_is_not_read(tmp_path, kind):
    (tmp_path / "state" / "edgellm").mkdir(parents=True)
    history = tmp_path / "state" / "edgellm" / "history"
    if kind == "pipe":
        os.mkfifo(history)
    else:
        with history.open("wb") as file:
            file.truncate(1 << 40)
    with keyboard("hello\r") as editor:
        assert editor.ask() == "hello"
