"""Thinking on the chat screen and in scripts: folded into a line, and never a part of the data."""

import io
import json
import re
import sys

import pytest
from support.scripted import write_scripted
from support.thinking_templates import CUTTING

import edgellm
from edgellm.chat import Chat
from edgellm.cli import app as cli
from edgellm.console.completion_view import PlainView
from edgellm.repl.repl import Session


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of a model that thinks."""
    return write_scripted(
        tmp_path_factory.mktemp("scripted") / "model",
        "<think>\nThey played</think>\n\nOnce <b>.",
        CUTTING,
        added=["<think>", "</think>", "\n\n"],
    )


@pytest.fixture(scope="module")
def llm(model):
    with edgellm.load(model, memory="500MB", threads=1) as llm:
        yield llm


def test_a_line_stands_for_the_thinking_and_a_command_shows_it(llm, capsys):
    session = Session(Chat(llm), PlainView)
    session.take("/thinking")
    assert "there is no thinking" in capsys.readouterr().err
    session.take("hello")
    streams = capsys.readouterr()
    assert streams.out == "Once <b>.\n"
    assert re.search(r"thought for \d.* m?s, 8 tokens\n", streams.err)
    session.take("/thinking")
    assert capsys.readouterr().err == "They played\n"


def test_thinking_that_was_cut_off_is_folded_too(llm, capsys):
    session = Session(Chat(llm, max_tokens=4), PlainView)
    session.take("hello")
    streams = capsys.readouterr()
    assert streams.out == "\n"
    assert re.search(r"thought for \d.* m?s, 4 tokens\ncut off at --max-tokens 4", streams.err)


def test_thinking_without_an_answer_is_said_also_where_it_is_loaded(llm, tmp_path, capsys):
    session = Session(Chat(llm, stop="</think>"), PlainView)
    session.take("hello")
    assert "(no answer came after the thinking)" in capsys.readouterr().err
    session.take(f"/save {tmp_path / 'talk.json'}")
    session.take(f"/load {tmp_path / 'talk.json'}")
    assert "(no answer came after the thinking)" in capsys.readouterr().err
    session.take("more")
    assert session.chat.messages[2]["content"] == "more"


@pytest.mark.parametrize(
    ("options", "answer"), [(["--think"], "Once <b>."), (["--no-think"], "\n\nOnce <b>.")]
)
def test_a_script_gets_answers_alone(model, options, answer, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    assert cli.main(["chat", str(model), *options]) == 0
    streams = capsys.readouterr()
    assert streams.out == f"{answer}\n"
    assert ("thought for" in streams.err) == (options == ["--think"])


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ([], 5),
        (["--think"], 5),
        (["--no-think"], 8),
        (["--template-variable", "enable_thinking=false"], 8),
        (["--template-variable", "enable_thinking=no"], 5),
    ],
)
def test_generate_renders_with_variables(model, options, tokens, capsys):
    command = ["generate", str(model), "--chat", "-p", "hi", "--max-tokens", "1", "--json"]
    assert cli.main([*command, *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["prompt_tokens"] == tokens


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--template-variable", "x=1"], "the chat template has no variable 'x'"),
        (["--template-variable", "x"], "--template-variable is 'x', which is not NAME=VALUE"),
        (["--template-variable", "=1"], "--template-variable is '=1', which is not NAME=VALUE"),
    ],
)
@pytest.mark.parametrize("command", ["chat", "generate"])
def test_variables_that_mean_nothing_are_said(model, options, message, command, capsys):
    arguments = [command, str(model), *options]
    if command == "generate":
        arguments += ["--chat", "-p", "hi"]
    assert cli.main(arguments) != 0
    assert message in capsys.readouterr().err


def test_a_prompt_that_is_not_rendered_takes_no_variables(model, capsys):
    assert cli.main(["generate", str(model), "-p", "hi", "--no-think"]) != 0
    assert "add --chat" in capsys.readouterr().err
