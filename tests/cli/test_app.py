"""The command line as a whole: help, the reference, and exit codes."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest
from support.paths import ROOT
from typer.main import get_command

import edgellm
from edgellm.cli.app import app
from edgellm.cli.command_group import CommandGroup


def leaves(group=None, words=()):
    """Return the words of every command that does something itself."""
    group = group or get_command(app)
    context = group.make_context("edgellm", [], resilient_parsing=True)
    found = []
    for name, entry in group.table.items():
        command = group.get_command(context, name)
        inner = words if entry.hidden else (*words, name)
        if isinstance(command, CommandGroup):
            found += leaves(command, inner)
        else:
            found.append(list(inner))
    return found


def test_help_lists_every_command(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert all(f"\n  {name} " in out for name in get_command(app).table)
    assert run() == (code, out, err)


@pytest.mark.parametrize("command", leaves(), ids=" ".join)
def test_every_help_has_an_example_that_is_understood(run, command):
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    help_text, _, example = out.partition("Example:\n")
    words = example.split()
    assert words[: len(command) + 1] == ["edgellm", *command]
    options = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert all(f"{option} " in help_text for option in options)


def test_no_help_imports_what_takes_time():
    code = (
        "import contextlib, io, json, sys\n"
        "from edgellm.cli.app import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    for command in json.loads(sys.argv[1]): main([*command, '--help'])\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    commands = json.dumps([[], ["bench"], ["eval"], ["adapter"], ["cluster"], *leaves()])
    asked = [sys.executable, "-c", code, commands]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    heavy = {"mlx", "torch", "transformers", "mlx_lm", "numba", "llvmlite", "numpy"}
    heavy |= {"prompt_toolkit", "tokenizers", "sentencepiece", "jinja2", "huggingface_hub"}
    assert not heavy & set(json.loads(done.stdout))


def test_version(run):
    assert run("--version") == (0, f"edgellm {edgellm.__version__}\n", "")


@pytest.mark.parametrize("word", ["version", "-v", "-V"])
def test_the_version_is_asked_for_as_elsewhere(run, word):
    assert run(word) == run("--version")


@pytest.mark.parametrize(
    ("words", "usual"),
    [
        (["-h"], ["--help"]),
        (["help"], ["--help"]),
        (["help", "info"], ["info", "--help"]),
        (["info", "-h"], ["info", "--help"]),
        (["help", "bench", "disk"], ["bench", "disk", "--help"]),
        (["bench", "-h"], ["bench", "--help"]),
    ],
)
def test_help_is_asked_for_as_elsewhere(run, words, usual):
    code, out, err = run(*words)
    assert (code, out, err) == run(*usual)
    assert out.startswith("Usage: edgellm ")


def test_help_of_the_bench_stands_in_groups_without_leftovers(run):
    out = run("bench", "--help")[1]
    assert re.findall(r"^[A-Z].*:$", out, re.M) == [
        "Model:", "Memory:", "Speed:", "Tests:", "Output:", "Options:", "Commands:"
    ]  # fmt: skip
    assert "<" not in out
    assert "x>=" not in out


def test_the_reference_is_up_to_date():
    found = importlib.util.spec_from_file_location(
        "cli_reference", ROOT / "scripts" / "cli_reference.py"
    )
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == script.reference()


def test_exit_codes(run, model, tmp_path):
    code, out, err = run("generate", model, "-p", "Once", "--memory", "10KB")
    assert (code, out) == (3, "")
    assert "\n\nhint: use --memory" in err
    code, out, err = run("info", "no-such-model")
    assert (code, out) == (1, "")
    assert err.startswith("error: there is no model 'no-such-model'\n\nhint: ")
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    code, out, err = run("generate", tmp_path, "-p", "Once")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    code, out, err = run("generate", model, "-p", "Once upon a time", "--context", 2)
    assert (code, out) == (1, "")
    assert err.startswith("error: the prompt has ")
