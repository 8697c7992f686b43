"""The text of a completion: what is shown after each token, and why it ends."""

import itertools
from copy import copy

from edgellm.generation.text_stream import BranchingText, TextStream


class Letters:
    """A decoder of letters that is always one token behind; ``#`` is a special token."""

    def __init__(self):
        self.held = ""
        self.added = []  # all that this one and its copies were given

    def copy(self):
        return copy(self)

    def control_text(self, token):
        return "<end>" if chr(token) == "#" else ""

    def add(self, token):
        self.added.append(token)
        if chr(token) == "#":
            return ""
        text, self.held = self.held, chr(token)
        return text

    def finish(self):
        text, self.held = self.held, ""
        return text


def stream(text, *, stop=(), end="", limit=100):
    opened = TextStream(Letters(), stop=stop, end_tokens={ord(one) for one in end}, limit=limit)
    return [opened.add(ord(letter)) for letter in text], opened


def test_an_end_token_ends_it_and_is_not_shown():
    shown, opened = stream("ab.", end=".")
    assert shown == [("", None), ("a", None), ("b", "stop")]
    assert opened.tokens == [ord("a"), ord("b"), ord(".")]


def test_at_the_limit_all_that_was_held_back_is_shown():
    assert stream("abc", limit=3)[0] == [("", None), ("a", None), ("bc", "length")]
    # also what might have become a stop text
    assert stream("abc", stop=["bcd"], limit=3)[0][-1] == ("bc", "length")


def test_a_stop_text_that_is_whole_only_at_the_limit_still_ends_it():
    assert stream("abc", stop=["bc"], limit=3)[0][-1] == ("", "stop")


def test_flush_gives_what_was_held_back():
    _, opened = stream("abc", stop=["bcd"])
    assert opened.flush() == "bc"
    assert opened.flush() == ""


def test_a_special_token_counts_in_stop_texts_as_it_is_written():
    letters = Plain()
    for stop, given, shown in (
        ("<end>", "ab#c", "ab"),
        ("b<end>", "ab#c", "a"),
        ("<end>c", "ab#cd", "ab"),
        ("d>c", "ab#cd", "ab"),
        ("<end", "a##", "a"),
    ):
        opened = TextStream(letters, stop=[stop], end_tokens=set(), limit=100)
        steps = [opened.add(ord(letter)) for letter in given]
        assert "".join(text for text, _ in steps) == shown
        assert "stop" in [reason for _, reason in steps], stop


def test_special_tokens_are_never_shown():
    opened = TextStream(Plain(), stop=["<end>!"], end_tokens=set(), limit=4)
    assert [opened.add(ord(letter)) for letter in "a#b#"] == [
        ("a", None),
        ("", None),
        ("b", None),
        ("", "length"),
    ]


def test_an_end_token_completes_a_stop_text():
    opened = TextStream(Plain(), stop=["b<end>"], end_tokens={ord("#")}, limit=100)
    assert [opened.add(ord(letter)) for letter in "ab#"] == [("a", None), ("", None), ("", "stop")]


class Plain(Letters):
    """A decoder of letters that holds nothing back."""

    def add(self, token):
        return "" if chr(token) == "#" else chr(token)


def test_branches_end_as_each_text_does_alone_and_read_a_token_once():
    letters = Letters()
    start = TextStream(letters, stop=["ab", "b<end>"], end_tokens={ord(".")}, limit=100)
    branches = BranchingText(start)
    texts, asked = [""], 0
    for _ in range(5):
        going = []
        for text in map("".join, itertools.product(texts, "ab#.")):
            ended = branches.is_finished(tuple(map(ord, text)))
            assert ended == (stream(text, stop=["ab", "b<end>"], end=".")[0][-1][1] == "stop"), text
            asked += 1
            if not ended:
                going.append(text)
        texts = going
    assert len(letters.added) <= asked
