"""Wrong usage is told as a fact and a next step."""

import pytest

MEMORY = "--memory needs a value: SIZE, PERCENT or auto"


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
            'edgellm generate "Once upon a time", or --prompt - to read standard input',
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
        (["chat", "--memory"], MEMORY, "see edgellm chat --help"),
        (["chat", "--memory", "--plain"], MEMORY, "see edgellm chat --help"),
        (["plan", "stories", "--memory"], MEMORY, "see edgellm plan --help"),
        (["generate", "-p", "-n", "4"], "-p needs a value: TEXT", "see edgellm generate --help"),
        (
            ["convert", "x", "y", "--recipe"],
            "--recipe needs a value: uniform or mixed",
            "see edgellm convert --help",
        ),
        (
            ["chat", "--memory", "4"],
            "memory: '4' has no unit",
            "write 4GB (10^9 bytes), 4GiB (2^30) or 4MB",
        ),
        (
            ["plan", "stories", "--sim-ram", "8"],
            "'8' has no unit",
            "write 8GB (10^9 bytes), 8GiB (2^30) or 8MB",
        ),
        (
            ["plan", "stories", "--sim-disk", "5"],
            "'5' has no unit",
            "write 5GB (10^9 bytes), 5GiB (2^30) or 5MB",
        ),
        (
            ["bench", "stories", "--memory", "5"],
            "'5' has no unit",
            "write 5GB (10^9 bytes), 5GiB (2^30) or 5MB",
        ),
        (
            ["generate", "-p", "x", "--seed", "y"],
            "invalid value for '--seed': it must be a whole number",
            "see edgellm generate --help",
        ),
        (
            ["generate", "-p", "x", "--temperature", "y"],
            "invalid value for '--temperature': it must be a number",
            "see edgellm generate --help",
        ),
        (
            ["generate", "-p", "x", "-ngl", "99", "-n", "3"],
            "there is no option -ngl",
            "leave it out; --memory says how much may be used",
        ),
        (
            ["convert", "--hf-path", "x", "--mlx-path", "y"],
            "there is no option --hf-path",
            "the source needs no option: edgellm convert SOURCE DEST",
        ),
        (
            ["bench", "-m", "stories", "-p", "8", "-n", "4", "-r", "1", "-t", "x"],
            "--threads x is not a list of numbers",
            "write it as 1,2,4",
        ),
        (["chat", "-t", "4"], "there is no option -t", "did you mean --threads or --temperature?"),
        (
            ["-m", "stories", "-p", "x"],
            "there is no option -m",
            "options go after the command: edgellm generate -m ...",
        ),
        (
            ["generate", "Once", "upon", "a", "time"],
            "got unexpected extra argument(s) (a time)",
            "put a text of several words in quotes, or see edgellm generate --help",
        ),
        (
            ["tell me a joke"],
            "there is no command 'tell me a joke'",
            "text goes after a command: edgellm generate TEXT, edgellm chat TEXT",
        ),
        (
            ["generate", "Once upon a time", "stories"],
            "there is no model 'Once upon a time'",
            "the model comes first: edgellm generate MODEL TEXT",
        ),
        (
            ["generate", "stories", "Once", "-p", "Once"],
            "the prompt is given twice, also as 'Once'",
            "leave out one",
        ),
        (
            ["ps"],
            "no model runs in the background",
            "edgellm list shows models on disk, and /v1/models of edgellm serve those in memory",
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
