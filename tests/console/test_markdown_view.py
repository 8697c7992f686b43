"""Markdown that grows: what is on the screen in the end, however the text came."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from support.screen import Screen

from edgellm.console.markdown_view import MarkdownView, split_finished
from edgellm.console.status_line import Activity

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


def terminal(screen, width=60):
    """A console that draws on a screen."""
    return Console(
        file=screen,
        force_terminal=True,
        width=width,
        height=screen.height,
        color_system=None,
        legacy_windows=False,
    )


def shown(pieces, *, width=60, height=12):
    """What is on the screen after an answer came in pieces, each of which was drawn."""
    screen = Screen(height)
    console = terminal(screen, width)
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


@settings(max_examples=25)
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


def test_thinking_is_shown_as_it_comes_and_then_folded_into_a_line():
    screen = Screen(12)
    activity = Activity(lambda: 0)
    with MarkdownView(activity, terminal(screen), drawing_share=math.inf) as view:
        activity.thinking = True
        for number in range(40):
            view.think(f"Step {number} of it.\n")
        view.draw()
        assert "Step 39 of it." in screen.text
        assert "thinking, 0 tokens" in screen.text
        view.think("One word more " * 100)
        view.draw()
        assert "One word" in screen.text
        activity.thinking = False
        view.fold("thought for 3.2 s, 214 tokens")
        view.add("The **answer**.")
        view.draw()
    assert screen.text == "thought for 3.2 s, 214 tokens\n\nThe answer."
