"""The chat screen: lines, commands, keys, and what Ctrl-C does."""

import io
import json
import os
import re
import signal
import sys

import pytest
from support import tiny
from support.disk_limits import no_umask, open_to_others
from support.keyboard import Terminal, keyboard

import edgellm
from edgellm.chat import Chat
from edgellm.cli import app as cli
from edgellm.console.completion_view import PlainView
from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.repl.repl import COMMANDS, Session, run_terminal

GREEDY = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a random model that can hold a conversation."""
    return tiny.write_model(
        tmp_path_factory.mktemp("models") / "tiny", tiny.CONFIGS["llama-3.2"], seed=3
    )


@pytest.fixture(scope="module")
def llm(model):
    with edgellm.load(model) as llm:
        yield llm


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    """A history of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def session(llm):
    return Session(Chat(llm, **GREEDY), PlainView)


class Interrupting(PlainView):
    """Shows text, and presses Ctrl-C as often as it is told when so many tokens are there."""

    def __init__(self, activity, *, after, presses):
        super().__init__(activity)
        self._after, self._presses = after, presses

    def add(self, text):
        super().add(text)
        self._after -= 1
        if self._after == 0:
            for _ in range(self._presses):
                signal.raise_signal(signal.SIGINT)


def replies(model, *texts, **settings):
    """What the Python door answers."""
    with edgellm.load(model) as llm, llm.chat(**{**GREEDY, **settings}) as chat:
        return [chat.send(text) for text in texts]


# Commands


def test_help_names_every_command(session, capsys):
    session.take("/help")
    streams = capsys.readouterr()
    assert streams.out == ""
    assert all(f"/{name}" in streams.err for name in COMMANDS)


@pytest.mark.parametrize(
    ("typed", "meant"), [("/stast", "/stats"), ("/hlep", "/help"), ("/Save x", "/save")]
)
def test_an_unknown_command_is_answered_with_the_closest_one(session, typed, meant):
    with pytest.raises(ConfigError) as caught:
        session.take(typed)
    assert caught.value.hint == f"did you mean {meant}?"
    assert session.chat.messages == []


def test_a_blank_before_a_slash_makes_it_text(session):
    session.take(" /etc")
    assert session.chat.messages[0]["content"] == " /etc"


def test_clear_keeps_the_system_message(session):
    session.take("/system Be brief.")
    session.take("hello")
    assert len(session.chat.messages) == 3
    session.take("/clear")
    assert session.chat.messages == [{"role": "system", "content": "Be brief."}]


def test_system_sets_shows_and_removes(session, capsys):
    session.take("/system")
    assert "there is no system message" in capsys.readouterr().err
    session.take("/system Be [bold]brief[/bold].")
    session.take("/system")
    assert capsys.readouterr().err.count("Be [bold]brief[/bold].") == 2
    session.take("/system off")
    assert session.chat.messages == []


def test_a_conversation_that_is_saved_goes_on_as_if_nothing_had_happened(session, llm, tmp_path):
    file = tmp_path / "talk.json"
    session.take("hello")
    session.take(f"/save {file}")
    session.take("more")
    other = Session(Chat(llm, **GREEDY), PlainView)
    other.take(f"/load {file}")
    assert other.chat.messages == session.chat.messages[:2]
    other.take("more")
    assert len(other.chat.messages) == 4


def test_save_asks_before_it_replaces_a_conversation(session, tmp_path, capsys):
    file = tmp_path / "talk.json"
    session.take("hello")
    session.take(f"/save {file}")
    before = file.read_bytes()
    session.take("more")
    with pytest.raises(ConfigError, match=r"talk\.json exists$"):
        session.take(f"/save {file}")
    for refusal in ("\r", "n\r", "\x03", "\x04"):
        with keyboard(f"/save {file}\r{refusal}\x04") as editor:
            run_terminal(session, editor)
        assert "nothing is saved" in capsys.readouterr().err
        assert file.read_bytes() == before
    with keyboard(f"/save {file}\ry\r\x1b[A\r\x04") as editor:
        run_terminal(session, editor)
    assert len(json.loads(file.read_text(encoding="utf-8"))["messages"]) == 4


def test_save_does_not_replace_what_it_did_not_write(session, tmp_path):
    file = tmp_path / "letter.txt"
    file.write_text("dear", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not a saved conversation"):
        session.take(f"/save {file}")
    assert file.read_text(encoding="utf-8") == "dear"
    with pytest.raises(EdgeLLMError):
        session.take(f"/save {tmp_path / 'nowhere' / 'talk.json'}")
    with pytest.raises(EdgeLLMError):
        session.take(f"/load {file}")
    with pytest.raises(ConfigError, match="which file"):
        session.take("/save")


def test_save_reads_nothing_but_plain_files_and_not_all_of_a_huge_one(session, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    for name in ("pipe", "zeros", "nowhere", "huge"):
        with pytest.raises(ConfigError, match="is not a saved conversation"):
            session.take(f"/save {tmp_path / name}")
        with pytest.raises(EdgeLLMError):
            session.take(f"/load {tmp_path / name}")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "zeros").is_symlink()


@pytest.mark.parametrize("name", ["~nobody-of-this-name/talk.json", "x" * 300, "a\0b"])
def test_names_that_no_file_can_have_are_said(session, name):
    for command in ("/save", "/load"):
        with pytest.raises(EdgeLLMError):
            session.take(f"{command} {name}")


def test_a_saved_conversation_is_for_the_owner_alone(session, tmp_path):
    session.take("hello")
    with no_umask():
        session.take(f"/save {tmp_path / 'talk.json'}")
    assert open_to_others(tmp_path) == []


def test_stats_tell_what_the_last_answer_has_cost(session, capsys):
    session.take("/stats")
    assert re.search(r"context +0 of 256 tokens", capsys.readouterr().err)
    session.take("hello")
    session.take("again")
    capsys.readouterr()
    session.take("/stats")
    streams = capsys.readouterr()
    assert streams.out == ""
    assert session.stats.cached_tokens > 0
    assert (
        f"{session.stats.prompt_tokens} tokens ({session.stats.cached_tokens} cached)"
        in streams.err
    )
    assert (
        f"{session.stats.prompt_tokens + session.stats.completion_tokens} of 256 tokens"
        in streams.err
    )


def test_stats_of_a_model_that_pages_tell_of_the_disk(model, capsys):
    with edgellm.load(model, context=64, prefill_chunk=32) as llm:
        budget = llm.plan.total_bytes - 1
    with edgellm.load(model, context=64, memory=budget) as llm:
        session = Session(Chat(llm, **GREEDY), PlainView)
        session.take("hi")
        session.take("/stats")
    told = capsys.readouterr().err
    assert re.search(r"read from disk +\d.* in \d\.0 passes", told)
    assert re.search(r"pinned +\d+% of the layers", told)
    assert re.search(r"efficiency +the disk was busy \d+% of the time", told)


# A script


def test_lines_are_turns_and_nothing_but_replies_is_printed(model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n\n/help\nand then?\n/exit\nnever\n"))
    assert (
        cli.main(["chat", str(model), "--temperature", "0", "--top-p", "1", "--max-tokens", "8"])
        == 0
    )
    assert capsys.readouterr().out == "".join(
        f"{reply}\n" for reply in replies(model, "hello", "and then?")
    )


def test_the_system_message_and_the_seed_arrive(model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello"))
    cli.main(["chat", str(model), "--seed", "5", "--max-tokens", "8", "--system", "Be brief."])
    expected = replies(model, "hello", system="Be brief.", seed=5, temperature=0.7, top_p=0.95)
    assert capsys.readouterr().out == f"{expected[0]}\n"


def test_a_script_ends_at_the_first_failure(model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n" + "long " * 400 + "\nnever\n"))
    assert (
        cli.main(["chat", str(model), "--temperature", "0", "--top-p", "1", "--max-tokens", "8"])
        == 1
    )
    streams = capsys.readouterr()
    assert streams.out == f"{replies(model, 'hello')[0]}\n"
    assert streams.err.count("error: the conversation has ") == 1


def test_the_bundled_model_says_in_one_line_how_to_get_a_real_one(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Tell me a story.\n"))
    assert cli.main(["chat", "--max-tokens", "40", "--seed", "1"]) == 0
    streams = capsys.readouterr()
    assert len(streams.out.split()) > 10
    lines = [line for line in streams.err.splitlines() if "edgellm chat " in line]
    assert len(lines) == 1


def test_a_model_without_a_template_is_refused(model, tmp_path, monkeypatch, capsys):
    folder = tiny.write_model(tmp_path / "base", tiny.CONFIGS["llama-2"])
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    del config["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello"))
    assert cli.main(["chat", str(folder)]) == 1
    assert "has no chat template" in capsys.readouterr().err


def test_a_conversation_on_the_screen(session, model, capsys):
    with keyboard("hello\r/stast\rand then?\r\x04") as editor:
        run_terminal(session, editor)
    streams = capsys.readouterr()
    assert streams.out == "".join(f"{reply}\n" for reply in replies(model, "hello", "and then?"))
    assert "did you mean /stats?" in streams.err


def test_exit_leaves(session):
    with keyboard("/exit\rnever\r") as editor:
        run_terminal(session, editor)
    assert session.chat.messages == []


def test_an_interrupt_at_an_empty_line_says_how_to_leave_and_else_drops_the_line(session, capsys):
    with keyboard("unfinished\x03\x04") as editor:
        run_terminal(session, editor)
    assert "leaves" not in capsys.readouterr().err
    with keyboard("\x03\x04") as editor:
        run_terminal(session, editor)
    assert "Ctrl-D or /exit leaves" in capsys.readouterr().err
    assert session.chat.messages == []


@pytest.mark.parametrize("presses", [1, 2])
def test_an_interrupt_stops_the_answer_and_not_the_program(llm, capsys, presses):
    handler = signal.getsignal(signal.SIGINT)
    chat = Chat(llm, **{**GREEDY, "max_tokens": 100})
    session = Session(chat, lambda activity: Interrupting(activity, after=3, presses=presses))
    with keyboard("hello\r\x04") as editor:
        run_terminal(session, editor)
    assert signal.getsignal(signal.SIGINT) is handler
    assert "stopped" in capsys.readouterr().err
    said = chat.messages[-1]["content"]
    assert chat.messages[-1]["role"] == "assistant"

    fresh = Chat(llm, **{**GREEDY, "max_tokens": 3 if presses == 2 else 4})
    assert fresh.send("hello").startswith(said), (
        "what was said until then stays in the conversation"
    )
    with keyboard("again\r\x04") as editor:
        run_terminal(Session(chat, PlainView), editor)
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2


# The real thing


def test_a_chat_on_a_real_terminal(model):
    answer = replies(model, "hello", max_tokens=200)[0]
    terminal = Terminal(
        "chat", str(model), "--temperature", "0", "--top-p", "1", "--max-tokens", "200"
    )
    try:
        terminal.wait_for(terminal.READY)
        terminal.type("hello\r")
        shown = terminal.wait_for(terminal.READY)
        words = re.findall(r"[a-z]{4,}", answer)
        assert words
        assert all(word in shown for word in words)
        terminal.type("/stats\r")
        assert "tokens/s" in terminal.wait_for(terminal.READY)
        terminal.type("\x03")
        assert "Ctrl-D or /exit leaves" in terminal.wait_for(terminal.READY)
        terminal.type("\x04")
        assert terminal.process.wait(60) == 0
        assert "Traceback" not in terminal.seen
    finally:
        terminal.close()
