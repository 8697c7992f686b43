"""What a shell completes: commands, options, values, models and shapes, at once."""

import json
import os
import subprocess
import sys

import pytest

from edgellm.cli.app import main


@pytest.fixture
def complete(monkeypatch, capsys):
    """Completes a line that ends where the cursor stands, as a shell asks for it."""

    def complete(line, shell="bash"):
        words = line.split(" ")
        monkeypatch.setenv("_EDGELLM_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        with pytest.raises(SystemExit):
            main([])
        return capsys.readouterr().out.splitlines()

    return complete


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("edgellm ch", ["chat"]),
        ("edgellm bench dis", ["disk"]),
        ("edgellm chat --kv-b", ["--kv-bits"]),
        ("edgellm chat --kv-bits ", ["32", "16", "8", "4"]),
        ("edgellm chat --memory ", ["auto"]),
        ("edgellm chat --backend m", ["mlx"]),
        ("edgellm convert x y --bits ", ["1", "2", "3", "4", "5", "6", "8", "16"]),
        ("edgellm convert x y --recipe ", ["uniform", "mixed"]),
        ("edgellm synth qwen3-8", ["qwen3-8b"]),
        ("edgellm chat stories --draft stories-", ["stories-draft"]),
        ("edgellm chat --temperature ", [""]),
        ("edgellm xyzzy x", [""]),
    ],
)
def test_words_are_completed(complete, line, found):
    assert complete(line) == found


def test_models_are_completed_wherever_one_is_asked_for(complete, tmp_path, monkeypatch):
    (tmp_path / "stout" / "tiny").mkdir(parents=True)
    (tmp_path / "stout" / "tiny" / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for command in ("chat", "generate", "info", "plan", "verify", "export", "pull", "rm"):
        assert complete(f"edgellm {command} st") == ["stories", "stories-draft", "stout/tiny"]


def test_other_shells_get_plain_lines(complete):
    assert complete("edgellm chat --me", "fish") == ["--memory"]
    assert complete("edgellm ch", "zsh") == ["""_arguments '*: :(("chat"))'"""]


def test_completion_imports_nothing_that_takes_time(tmp_path):
    hub = tmp_path / "hub"
    (hub / "models--owner--name" / "snapshots").mkdir(parents=True)
    (hub / "datasets--owner--data" / "snapshots").mkdir(parents=True)
    code = (
        "import json, sys\n"
        "from edgellm.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    line = {"_EDGELLM_COMPLETE": "complete_bash", "COMP_WORDS": "edgellm chat ", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | line | {"HF_HUB_CACHE": str(hub)},
    )
    *names, modules = done.stdout.splitlines()
    assert {"stories", "stories-draft", "owner/name"} <= set(names)
    assert "owner/data" not in names
    heavy = {"mlx", "numpy", "pydantic", "rich", "prompt_toolkit", "tokenizers", "jinja2", "httpx"}
    assert not heavy & set(json.loads(modules))
