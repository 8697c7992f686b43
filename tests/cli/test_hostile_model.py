"""A model whose every text holds escape sequences, in every command, on a terminal."""

import json
import re
import shutil

import pytest
from support import tiny
from support.keyboard import Terminal
from support.pseudo_terminal import HOSTILE, obeyed, pseudo_terminal

from edgellm.cli.app import main
from edgellm.errors import escape_controls

NAME = HOSTILE.replace("/", "_")
"""The same as a name of files."""

SHOWN = escape_controls(HOSTILE)[:40]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of a hostile name whose model says hostile words."""
    folder = tiny.write_model(
        tmp_path_factory.mktemp("hostile") / f"model{NAME}", tiny.CONFIGS["llama-3.2"], seed=3
    )
    file = folder / "tokenizer.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    switches = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    document["added_tokens"] += [
        {"id": token, "content": f"{HOSTILE}{token}", **switches}
        for token in range(tiny.VOCABULARY - 8, tiny.VOCABULARY)
    ]
    file.write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "400")


def run(*arguments):
    """Run a command line on a terminal; return its exit code and what was seen."""
    with pseudo_terminal() as seen:
        code = main([str(argument) for argument in arguments])
    assert obeyed(seen.text) == []
    assert "\x1b[35m" not in seen.text
    return code, seen.text


SAMPLING = ["--max-tokens", "60", "--temperature", "3", "--seed", "5"]


@pytest.mark.parametrize(
    "words",
    [
        ["info", "MODEL"],
        ["plan", "MODEL"],
        ["verify", "MODEL"],
        ["generate", "MODEL", "-p", HOSTILE, *SAMPLING],
        ["info", HOSTILE],
        ["info", f"--{HOSTILE}"],
        [HOSTILE],
        ["convert", f"MODEL/{NAME}", "made"],
        ["doctor", HOSTILE],
        ["bench", HOSTILE],
    ],
)
def test_a_terminal_shows_the_names_and_words_of_a_model(model, words):
    code, seen = run(*(word.replace("MODEL", str(model)) for word in words))
    assert code in {0, 1, 2}
    if words[0] != "verify":  # which names the folder only where something is wrong
        assert re.search(r"\\x1b.?\[35m", seen)


def test_logprobs_hold_the_words_as_json(model):
    _, seen = run("generate", model, "-p", "x", "--json", "--logprobs", *SAMPLING)
    document = json.loads(seen[seen.index("{\n") :])
    assert HOSTILE in document["text"]


def test_a_gguf_file_of_a_hostile_name(model, tmp_path):
    file = tmp_path / f"{NAME}.gguf"
    code, seen = run("export", model, file)
    assert (code, SHOWN[:20] in seen) == (0, True)
    code, seen = run("convert", file, tmp_path / f"back{NAME}")
    assert (code, SHOWN[:20] in seen) == (0, True)
    assert run("verify", tmp_path / f"back{NAME}")[0] == 0


def test_every_key_of_the_config(model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    refused = 0
    for key in [*config, "rope_scaling", "sliding_window", "quantization", HOSTILE]:
        for value in (HOSTILE, [HOSTILE], {HOSTILE: HOSTILE}):
            text = json.dumps(config | {key: value})
            (folder / "config.json").write_text(text, encoding="utf-8")
            refused += run("info", folder)[0] == 1
    assert refused > 40


def test_names_of_tensors_and_files(model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    for weight_map in ({HOSTILE: "model.safetensors"}, {"model.norm.weight": NAME}):
        index = json.dumps({"metadata": {}, "weight_map": weight_map})
        (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
        code, seen = run("verify", folder)
        assert (code, "Traceback" in seen) == (1, False)


def test_a_chat_template_that_refuses_and_a_message_with_controls(model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    template = "{{ raise_exception(" + json.dumps(HOSTILE) + ") }}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    code, seen = run("generate", folder, "-p", "x", "--chat")
    assert (code, SHOWN[:20] in seen) == (1, True)


def test_a_chat_shows_what_the_model_says(model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    terminal = Terminal("chat", str(model), *SAMPLING)
    try:
        terminal.wait_for(terminal.READY)
        terminal.type("hello\r")
        terminal.wait_for(terminal.READY)
        # pasted, so that the keys in it are text
        terminal.type(f"\x1b[200~/load {HOSTILE}\x1b[201~\r")
        terminal.wait_for(terminal.READY)
        terminal.type("\x04")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.close()
    # the line editor goes back by these two
    assert obeyed(re.sub(r"[\r\b]", "", terminal.seen)) == []
    assert r"\x1b[35m" in terminal.seen
    assert "\x1b[35m" not in terminal.seen
