"""Lines that are typed while an answer comes: shown as queued, and taken afterwards."""

import os
import pty
import tty

import pytest
from support.keyboard import Terminal, keyboard
from support.screen import Clock

from edgellm.console.status_line import Activity
from edgellm.repl.typed_ahead import TypedAhead


@pytest.fixture
def terminal():
    """The keyboard's end of a terminal, and what is typed on it."""
    master, slave = pty.openpty()
    tty.setcbreak(slave)
    yield master, TypedAhead(slave)
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ("and th", "> and th"),
        ("and then?\r", "queued: and then?"),
        ("and then?\rwh", "queued: and then?  > wh"),
        ("one\r\rtwo\r", "queued: 2 lines, the last: two"),
        ("helo\x7flo\r", "queued: hello"),
        ("naïve 日本\r", "queued: naïve 日本"),
    ],
)
def test_what_is_typed_is_shown(terminal, keys, shown):
    master, typed = terminal
    assert typed.shown() == ""
    os.write(master, keys.encode())
    assert typed.shown() == shown
    assert "\x1b" not in shown
    assert typed.take() == keys
    assert typed.shown() == ""


def test_what_terminals_obey_is_shown_as_text(terminal):
    master, typed = terminal
    os.write(master, b"\x1b[A\x1b]0;title\x07")
    assert typed.shown().isprintable()


def test_queued_lines_are_the_next_texts_and_after_an_interrupt_wait_to_be_sent(terminal):
    master, typed = terminal
    os.write(master, b"one\rtwo\r")
    with keyboard("") as editor:
        editor.type_ahead(typed.take())
        assert (editor.ask(), editor.ask()) == ("one", "two")
    os.write(master, b"one\rtwo\r")
    with keyboard("!\r") as editor:
        editor.type_ahead(typed.take(unsent=True))
        assert editor.ask() == "one\ntwo!"


def test_the_status_line_shows_it_in_what_room_there_is():
    watched = Activity(lambda: 0, Clock())
    assert not watched.quiet
    watched.typed = lambda: "queued: 日本語"
    assert watched.quiet
    assert watched.line(80) == "queued: 日本語"
    assert watched.line(11) == "queued: 日"
    assert watched.line(0) == watched.line(-1) == ""


def test_a_line_typed_during_an_answer_is_answered_next():
    terminal = Terminal("chat", "stories", "--temperature", "0", "--max-tokens", "300")
    try:
        terminal.wait_for(terminal.READY)
        while "queued: /stats" not in terminal.seen:  # else an answer was too quick for this test
            terminal.type("hello\r")
            terminal.wait_for("\x1b[?2004l")  # the editor has ended
            terminal.type("/stats\r")
            terminal.wait_for(" of 1,024 tokens")
            # between answer and editor the terminal takes Ctrl-D for the end of a line
            terminal.wait_for(terminal.READY, after=" of 1,024 tokens")
        terminal.type("\x04")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.close()
