"""What is drawn on a screen: answers that grow, the line that shows life, and sizes as people write them."""

import io
import math
import re
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from edgellm.console import completion_view as answer
from edgellm.console import status_line as activity
from edgellm.console import terminal
from edgellm.console import units as quantities
from edgellm.console.completion_view import last_column
from edgellm.console.markdown_view import MarkdownView, split_finished
from edgellm.console.status_line import Activity
from edgellm.errors import EdgeLLMError
from edgellm.generation.stats import Progress

DOCUMENT = """\
# A heading

Roses are red,
Violets are blue, <b>and</b> tags, `code`, **bold** and *it*.

1. one

2. two
   - nested a
   - nested b

   and more

3. three

```python
def f(x):

    return x + 1
```

> a quote

| a | b |
|---|---|
| 1 | 2 |

---

The last paragraph, long enough to be broken in a terminal of sixty columns or of forty.
"""

BLOCKS = [
    "A paragraph.",
    "# Title",
    "- a\n- b\n\n- c",
    "```\ncode\n\nmore\n```",
    "> said",
    "1. x\n2. y",
    "| a |\n|---|\n| 1 |",
]


class Screen:
    """As much of a terminal as is needed to see what stays on it: lines above the cursor scroll away but are kept."""

    def __init__(self, height):
        self.height, self.lines, self.row, self.column = height, [""], 0, 0

    def write(self, text):
        for part in re.split(r"(\x1b\[[0-9;?]*[a-zA-Z]|\r|\n)", text):
            self._take(part)

    def _take(self, part):
        move = re.fullmatch(r"\x1b\[(\d*)A", part)
        if part == "\r":
            self.column = 0
        elif part == "\n":
            self.row, self.column = self.row + 1, 0
            if self.row == len(self.lines):
                self.lines.append("")
        elif move:
            self.row -= int(move[1] or 1)
            assert self.row >= 0
            assert len(self.lines) - self.row <= self.height, (
                "what has scrolled away cannot be written to"
            )
        elif part in {"\x1b[2K", "\x1b[K"}:
            self.lines[self.row] = self.lines[self.row][: 0 if part == "\x1b[2K" else self.column]
        elif not part.startswith("\x1b"):
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + part + line[self.column + len(part) :]
            self.column += len(part)

    def flush(self):
        """Nothing is held back."""

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.lines).strip("\n")


def shown(pieces, *, width=60, height=12):
    """What is on the screen after an answer came in pieces, each of which was drawn."""
    screen = Screen(height)
    console = Console(
        file=screen,
        force_terminal=True,
        width=width,
        height=height,
        color_system=None,
        legacy_windows=False,
    )
    with MarkdownView(Activity(lambda: 0), console, drawing_share=math.inf) as view:
        for piece in pieces:
            view.add(piece)
            view.draw()
    return screen.text


@pytest.mark.parametrize("size", [1, 3, 17, 5000])
@pytest.mark.parametrize("width", [40, 60])
def test_markdown_that_comes_in_pieces_ends_as_if_it_had_come_at_once(size, width):
    whole = shown([DOCUMENT], width=width, height=100)
    assert (
        shown([DOCUMENT[at : at + size] for at in range(0, len(DOCUMENT), size)], width=width)
        == whole
    )
    assert whole.count("The last paragraph") == 1
    assert "Roses are red,\nViolets are blue, <b>and</b> tags, code," in whole


@settings(max_examples=40)
@given(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=6), st.integers(1, 9))
def test_blocks_are_printed_once_however_they_come(blocks, size):
    text = "\n\n".join(blocks)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    words = re.findall(r"[A-Za-z]\w+", text)
    on_screen = shown(pieces, height=6)
    assert sorted(re.findall(r"[A-Za-z]\w+", on_screen)) == sorted(words)


def test_a_block_taller_than_the_screen_is_printed_whole_in_the_end():
    lines = [f"line {number}" for number in range(50)]
    on_screen = shown([f"{line}\n" for line in ["```", *lines, "```", "", "after"]], height=8)
    assert re.findall(r"line \d+", on_screen) == lines


@given(st.text(alphabet="ab #`-\n>|1.", max_size=60))
def test_nothing_is_lost_between_finished_and_unfinished(text):
    finished, rest = split_finished(text)
    assert (f"{finished}\n{rest}" if finished else rest) == text


# The line that shows life


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_line_shows_only_when_nothing_comes():
    clock = Clock()
    watched = Activity(lambda: 0, clock)
    assert not watched.quiet
    clock.now += activity.FIRST_PATIENCE + 0.1
    assert watched.quiet
    watched.token()
    assert not watched.quiet
    clock.now += 0.9
    assert not watched.quiet
    clock.now += 0.2
    assert watched.quiet


def test_the_line_tells_tokens_time_and_what_the_disk_gives():
    clock, read = Clock(), [10**9]
    watched = Activity(lambda: read[0], clock)
    watched.prefill(Progress(1500))
    clock.now += 2
    assert watched.line(200)[2:] == "reading the prompt, 1,500 tokens · 2.0 s"
    watched.prefill(Progress(1500, prefill_done=512))
    assert watched.line(200)[2:] == "reading the prompt, 512 of 1,500 tokens · 2.0 s"
    watched.token()
    clock.now += 2
    read[0] += 8 * 10**9
    assert watched.line(200)[2:] == "1 token · 4.0 s · 8.00 GB read · 2.00 GB/s"
    watched.stopping = True
    assert "Ctrl-C again" in watched.line(200)


@given(st.integers(0, 120), st.integers(0, 100), st.floats(0, 10**5), st.integers(0, 10**15))
def test_the_line_fits_into_what_room_there_is(room, tokens, elapsed, read):
    clock, counted = Clock(), [0]
    watched = Activity(lambda: counted[0], clock)
    for _ in range(tokens):
        watched.token()
    clock.now += elapsed
    counted[0] = read
    assert len(watched.line(room)) <= room
    assert watched.line(200)


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


def test_the_status_line_is_wiped_off_before_text_comes(monkeypatch):
    screen = Screen(24)
    screen.isatty, screen.closed = lambda: True, False
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    clock = Clock()
    watched = Activity(lambda: 0, clock)
    drawn = threading.Event()
    write = screen.write

    def noticed(text):
        write(text.replace(f"\x1b[{screen_left(text)}D", "") if screen_left(text) else text)
        if screen_left(text):
            screen.column -= screen_left(text)
            drawn.set()

    screen.write = noticed
    with answer.PlainView(watched) as view:
        for word in ("Once ", "upon ", "a time"):
            clock.now += 5
            assert drawn.wait(30)
            assert " s" in screen.text
            view.add(word)
            watched.token()
            drawn.clear()
    assert screen.text == "Once upon a time"


def screen_left(text):
    """How far a text moves the cursor to the left in its end."""
    found = re.search(r"\x1b\[(\d+)D$", text)
    return int(found[1]) if found else 0


# Words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 KB"),
        (999_949, "1000 KB"),
        (999_950, "1.00 MB"),
        (4_050_000_000, "4.05 GB"),
        (38.7e9, "38.7 GB"),
        (114e6, "114 MB"),
        (5e15, "5000 TB"),
    ],
)
def test_sizes(value, text):
    assert quantities.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0004, "0 ms"),
        (0.42, "420 ms"),
        (1, "1.0 s"),
        (99.9, "99.9 s"),
        (125, "2 min 05 s"),
        (7260, "2 h 01 min"),
    ],
)
def test_times(value, text):
    assert quantities.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(42.04, "42.0 tokens/s"), (1234, "1234 tokens/s"), (0.5, "0.50 tokens/s (2.0 s each)")],
)
def test_speeds(value, text):
    assert quantities.speed(value) == text


def test_counts():
    assert quantities.count(6_950_000) == "6.95 million"
    assert quantities.count(70_600_000_000) == "70.6 billion"
    assert (quantities.plural(1, "layer"), quantities.plural(2000, "token")) == (
        "1 layer",
        "2,000 tokens",
    )


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
    import sys

    terminal.write("nobody reads this")
    assert sys.stdin.read() == ""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.close()
