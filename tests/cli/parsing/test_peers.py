"""What users of other programs type first is understood, or explained."""

import pytest
from support.pseudo_terminal import pseudo_terminal

from edgellm.cli.app import main
from edgellm.cli.parsing.peer_commands import OUR_COMMANDS, PEER_HINTS, SAME_HINT
from edgellm.cli.parsing.peer_options import SHORT_OPTIONS, TRAINING_HINTS, TRAINING_OPTIONS

TEXT = "Once upon a time"


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "-m", "{model}", "-p", TEXT, "-n", "6", "-c", "64"],
        ["generate", "--model={model}", "--prompt", TEXT, "--n-predict=6", "--ctx-size=64"],
        ["generate", "{model}", TEXT, "--max-new-tokens", "6", "--n-ctx", "64"],
        ["generate", "{model}", TEXT, "-n6", "--repeat-penalty", "1", "--max-seq-len", "64"],
        ["complete", "{model}", TEXT, "--num-predict", "6", "--temp", "0", "--num-ctx", "64"],
    ],
    ids=lambda words: " ".join(words[:3]),
)
def test_other_programs_words_are_taken(run, model, words):
    usual = run("generate", model, "--prompt", TEXT, "--max-tokens", 6)[1]
    code, out, _ = run(*(word.format(model=model) for word in words))
    assert (code, out) == (0, usual)


def test_a_text_in_the_models_place_is_one_for_the_bundled_model(run):
    expected = run("generate", "stories", "--prompt", TEXT, "--max-tokens", 4)
    assert run("generate", TEXT, "--max-tokens", 4) == expected


def test_a_word_that_is_no_model_is_explained(run):
    code, _, err = run("chat", "hello")
    assert code == 1
    assert err.startswith(
        "error: there is no model 'hello'\n\nhint: models are named as on the Hub"
    )
    assert 'if it is a text: edgellm chat stories "hello"' in err
    assert "did you mean stories?" in run("chat", "storeis")[2]


def test_a_first_message_is_answered_and_the_lines_after_it(run, model, monkeypatch, tmp_path):
    (tmp_path / "lines").write_text("more\n", encoding="utf-8")
    with (tmp_path / "lines").open(encoding="utf-8") as lines:
        monkeypatch.setattr("sys.stdin", lines)
        code, out, _ = run("run", model, "hello", "-n", 4, "--seed", 1)
    assert (code, out.count("\n") >= 2) == (0, True)


def test_names_of_other_programs_lead_to_what_is_there(run):
    for name in OUR_COMMANDS:
        code, out, err = run(name, "--help")
        assert (code, err) == (0, f"{name} is called edgellm {OUR_COMMANDS[name]}\n")
        assert out.startswith(f"Usage: edgellm {OUR_COMMANDS[name]} ")
    assert set(SAME_HINT.values()) <= set(PEER_HINTS)
    for name in (*PEER_HINTS, *SAME_HINT):
        code, out, err = run(name, "x")
        assert (code, out) == (2, "")
        assert "\n\nhint: " in err
    assert run("help") == run("--help")
    assert run("version") == run("--version")


def test_options_of_other_trainers_lead_to_ours(run):
    for name, ours in TRAINING_OPTIONS.items():
        for spelled in (name, f"--{name[2:].replace('-', '_')}"):
            code, _, err = run("train", "model", "data", "out", spelled, "1")
            assert (code, f"hint: did you mean {ours}?" in err) == (2, True), name
        assert ours in run("train", "--help")[1]
    for name, hint in TRAINING_HINTS.items():
        assert hint in run("train", "model", "data", "out", name, "1")[2]
    assert "--rate" not in run("generate", "model", "--lr", "1")[2], "it has none"


def test_help_shows_our_own_words_alone(run):
    shown = run("generate", "--help")[1] + run("--help")[1]
    assert not [name for name in (*SHORT_OPTIONS, "--temp") if f" {name} " in shown]
    assert not [name for name in OUR_COMMANDS if f"\n  {name} " in shown]


def test_the_outcome_is_said_on_a_terminal_alone(run, model):
    words = ["generate", model, TEXT, "--max-tokens", "6"]
    assert run(*words)[2] == ""
    with pseudo_terminal() as seen:
        assert main([*words, "--context", "64"]) == 0
    assert "cut off at --max-tokens 6" in seen.text
    assert "6 tokens, " in seen.text
    assert " tokens/s, first token after " in seen.text
    with pseudo_terminal() as seen:
        assert main(["generate", model, TEXT, "--context", "16", "--max-tokens", "64"]) == 0
    assert "cut off: the context of 16 tokens is full; --context sets it" in seen.text
