"""Thinking is parted from answers however they come, and switched as templates switch it."""

from itertools import product

import pytest

from edgellm.chat_template.template import ChatTemplate
from edgellm.chat_template.thinking import (
    KNOWN,
    Markers,
    ThinkingFilter,
    find_markers,
    template_variables,
    visible_reply,
)
from edgellm.errors import TemplateError

THINK, MISTRAL, GPT_OSS, *_ = KNOWN
FINAL = "<|start|>assistant<|channel|>final<|message|>"
REPLIES = [
    (THINK, False, "<think>\nhm, 1 < 2\n</think>\n\nTwo.", "hm, 1 < 2", "Two."),
    (THINK, True, "hm\n\nso\n</think>\n\nTwo.\n", "hm\n\nso", "Two.\n"),
    (THINK, False, "\n<think>\n\n</think>\n\nTwo.", "", "Two."),
    (THINK, False, "  Two.", "", "  Two."),
    (THINK, False, "A <think> tag.</think>", "", "A <think> tag.</think>"),
    (THINK, False, "<thin", "", "<thin"),
    (THINK, True, "hm </thin", "hm", ""),
    (THINK, True, "hm", "hm", ""),
    (THINK, False, "<think>a</think><answer>\nTwo.\n</answer>", "a", "Two."),
    (THINK, False, "<think>a</think><response>Two</response>\n", "a", "Two"),
    (THINK, True, "a</think> x <answer>", "a", "x <answer>"),
    (MISTRAL, False, "[THINK]hm[/THINK]Two.", "hm", "Two."),
    (GPT_OSS, False, f"<|channel|>analysis<|message|>hm<|end|>{FINAL}Two.", "hm", "Two."),
    (GPT_OSS, False, "<|channel|>final<|message|>Two.", "", "Two."),
    (Markers("<t>", "</t>"), False, "<t>a</t>b<t>c</t>", "a", "b<t>c</t>"),
]


def parted(markers, opened, pieces):
    """The thinking and the answer of a reply that comes in pieces."""
    splitter = ThinkingFilter(markers, opened=opened)
    parts = [splitter.add(piece) for piece in pieces]
    end = splitter.finish(whole=True)
    return "".join(part[0] for part in parts), "".join(part[1] for part in parts) + end


@pytest.mark.parametrize(("markers", "opened", "reply", "thinking", "answer"), REPLIES)
def test_thinking_is_parted_from_the_answer(markers, opened, reply, thinking, answer):
    for size in (1, 2, 3, 5, 7, len(reply)):
        pieces = [reply[begin : begin + size] for begin in range(0, len(reply), size)]
        assert parted(markers, opened, pieces) == (thinking, answer)


@pytest.mark.parametrize("opened", [False, True])
def test_what_is_shown_never_depends_on_how_it_comes(opened):
    pieces = ["<think>", "</think>", "<th", "ink>", "</", "a", " ", "\n"]
    for reply in product(pieces, repeat=4):
        thinking, answer = parted(THINK, opened, reply)
        text = "".join(reply)
        assert (thinking, answer) == parted(THINK, opened, [text])
        assert (thinking, answer) == parted(THINK, opened, list(text))
        assert "</think>" not in thinking


def test_a_reply_that_was_cut_off_in_a_marker_shows_no_half_of_it():
    splitter = ThinkingFilter(THINK, opened=False)
    assert splitter.add("<thi") == ("", "")
    assert splitter.finish(whole=False) == ""


def test_special_tokens_are_never_shown():
    splitter = ThinkingFilter(GPT_OSS, opened=False, hidden=["<|channel|>", "<|message|>"])
    assert splitter.add("<|channel|>commentary<|message|>x") == ("", "commentaryx")


def test_markers_are_those_of_the_template_or_of_the_tokens():
    assert find_markers("{{ messages }}", lambda token: False) is None
    assert find_markers("{{ messages }}", lambda token: token == "<think>") is None
    assert find_markers("{{ messages }}", lambda token: "THINK" in token).start == "[THINK]"
    found = find_markers("{{ '<think>' }}{{ '<answer>' }}", lambda token: False)
    assert found == Markers("<think>", "</think>", (("<answer>", "</answer>"),))


@pytest.mark.parametrize(
    ("source", "think", "given", "variables"),
    [
        (
            "{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}"
            "{%- endif -%}{{ enable_thinking }}",
            False,
            {},
            {"enable_thinking": False},
        ),
        ("{% set thinking = thinking | default(false) %}", True, {}, {"thinking": True}),
        ("{{ enable_thinking }}", True, {"enable_thinking": 0}, {"enable_thinking": 0}),
        ("{{ reasoning_effort }}", None, {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ("{{ a }}", None, {}, {}),
    ],
)
def test_a_template_is_given_its_own_variables(source, think, given, variables):
    names = ChatTemplate(source).names
    assert template_variables(names, think=think, given=given) == variables


def test_variables_that_a_template_does_not_have_are_refused():
    names = ChatTemplate("{{ messages }}{{ reasoning_effort }}{{ raise_exception }}").names
    for wish in (True, False):
        with pytest.raises(TemplateError, match="no switch for thinking") as caught:
            template_variables(names, think=wish, given={})
        assert caught.value.hint.endswith("its variables are: reasoning_effort")
    for name in ("reasoning", "messages", "add_generation_prompt"):
        with pytest.raises(TemplateError, match="has no variable") as caught:
            template_variables(names, think=None, given={name: 1})
        assert caught.value.hint == "its variables are: reasoning_effort"


def test_a_damaged_template_has_no_names():
    with pytest.raises(TemplateError, match="damaged in line 1"):
        _ = ChatTemplate("{% if %}").names


@pytest.mark.parametrize(
    ("source", "content", "keeps"),
    [
        ("{{ m.reasoning_content }}{{ c.split('</think>') }}", "Two.", True),
        ("{{ m['reasoning_content'] }}", "Two.", True),
        ("{% if '</think>' in c %}{% endif %}", "<think>\nhm\n</think>\n\nTwo.", False),
        ("{{ '<think>\\n\\n</think>' }}{{ c }}", "Two.", True),
        ("{{ c }}", "Two.", True),
    ],
)
def test_a_template_that_cuts_thinking_out_gets_the_whole_text(source, content, keeps):
    message = {"role": "assistant", "content": "Two.", "reasoning_content": "hm"}
    visible = visible_reply(message, ChatTemplate(source).names, THINK)
    assert visible["content"] == content
    assert ("reasoning_content" in visible) == keeps
