"""Wrong usage is told as a fact and a next step."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "fact", "hint"),
    [
        (["generat"], "there is no command 'generat'", "did you mean generate?"),
        (["xyzzy"], "there is no command 'xyzzy'", "see edgellm --help"),
        (
            ["generate", "--tempeature", "1"],
            "there is no option --tempeature",
            "did you mean --temperature?",
        ),
        (
            ["generate", "--tempeature=1"],
            "there is no option --tempeature",
            "did you mean --temperature?",
        ),
        (["info", "x", "--xyzzy"], "there is no option --xyzzy", "see edgellm info --help"),
        (
            ["generate", "-p", "x", "--temperature", "-1"],
            "temperature is -1.0; it must be a number between 0 and 100",
            None,
        ),
        (
            ["generate", "-p", "x", "--stop", ""],
            "stop has ''; a stop text must be a text that is not empty",
            "leave it out, or give the text that ends the answer",
        ),
        (
            ["generate", "-p", "x", "--backend", "abacus"],
            "backend is 'abacus'; it must be one of auto, mlx",
            None,
        ),
        (
            ["generate"],
            "there is no prompt",
            "give one with --prompt TEXT, or --prompt - to read standard input",
        ),
        (
            ["generate", "-p", "x", "--logprobs"],
            "log-probabilities are printed as JSON",
            "add --json",
        ),
        (
            ["generate", "-p", "x", "--system", "y"],
            "a system message needs a conversation",
            "add --chat",
        ),
    ],
)
def test_wrong_usage_is_a_fact_and_a_next_step(run, arguments, fact, hint):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err == (f"error: {fact}\n\nhint: {hint}\n" if hint else f"error: {fact}\n")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["info"], "MODEL"),
        (["info", "a", "b"], "b"),
        (["generate", "--prompt"], "--prompt"),
        (["generate", "-p", "x", "--max-tokens", "many"], "--max-tokens"),
        (["bench", "paging"], "MODEL"),
        (["--"], "missing command"),
    ],
)
def test_wrong_usage_that_typer_notices_names_what_is_wrong(run, arguments, named):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    fact, _, hint = err.partition("\n\n")
    assert fact.startswith("error: ")
    assert named in fact
    assert hint.startswith("hint: see edgellm ")
    assert hint.endswith(" --help\n")
