"""Plain text on a terminal, with a status line behind it."""

import threading

import pytest
from support.screen import Clock, Screen

from edgellm.console.completion_view import PlainView, last_column
from edgellm.console.status_line import Activity


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("", 0),
        ("abc", 3),
        ("a" * 10, 10),
        ("a" * 11, 1),
        ("aaaaaaaaa界", 2),
        ("界" * 5, 10),
        ("a\tb", 9),
    ],
)
def test_the_column_after_a_wrapped_line(line, column):
    assert last_column(line, 10) == column


class WatchedTerminal(Screen):
    """A screen that is a terminal, and tells when the status line has been drawn on it."""

    closed = False

    def __init__(self):
        super().__init__(height=24)
        self.drawn = threading.Event()

    def isatty(self):
        return True

    def write(self, text):
        super().write(text)
        if text.endswith("D"):  # the cursor went back to where the text ends
            self.drawn.set()


def test_the_status_line_is_wiped_off_before_text_comes(monkeypatch):
    screen = WatchedTerminal()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    clock = Clock()
    activity = Activity(lambda: 0, clock)
    with PlainView(activity) as view:
        for word in ("Once ", "upon ", "a time"):
            clock.now += 5
            assert screen.drawn.wait(30)
            assert " s" in screen.text
            view.add(word)
            activity.token()
            screen.drawn.clear()
    assert screen.text == "Once upon a time"


def test_there_is_no_status_line_where_nothing_is_a_terminal(capsys):
    clock = Clock()
    with PlainView(Activity(lambda: 0, clock)) as view:
        clock.now += 5
        view.add("Once")
    assert capsys.readouterr() == ("Once\n", "")
