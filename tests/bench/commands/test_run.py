"""`edgellm bench` on the command line: files, exit codes, wrong options, and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from edgellm.cli.app import main
from edgellm.converters.synthetic import synthesize
from edgellm.errors import MemoryBudgetError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("speed") / "model"
    synthesize("tiny-llama", path, bits=16)
    return path


def test_the_command_line_measures_and_writes_files(folder, tmp_path, capsys):
    outputs = [tmp_path / f"out.{suffix}" for suffix in ("json", "jsonl", "csv", "md", "html")]
    arguments = [
        "bench",
        str(folder),
        "--backend",
        "edgellm,edgellm",
        "--bits",
        "3",
        "--threads",
        "1",
    ]
    arguments += ["--prompt-tokens", "8", "--gen-tokens", "4", "--repetitions", "2", "--json"]
    code = main([*arguments, *[word for path in outputs for word in ("--output", str(path))]])
    printed = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [record["test"] for record in printed["records"]] == ["pp8", "tg4"]
    assert {record["bits"] for record in printed["records"]} == {3}
    assert json.loads(outputs[0].read_text()) == printed
    assert len(outputs[1].read_text().splitlines()) == 2
    assert len(outputs[2].read_text().splitlines()) == 3
    assert "| edgellm |" in outputs[3].read_text()
    assert "<h2>Generation</h2>" in outputs[4].read_text()


def test_a_failure_is_in_the_exit_status(tmp_path, capsys):
    assert main(["bench", str(tmp_path / "nothing.gguf"), "--backend", "llama.cpp", "--json"]) == 1
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert record["test"] == "load"
    assert record["error"]


def test_a_name_that_nobody_can_find_is_one_error_before_anything_starts(tmp_path, capsys):
    kept = tmp_path / "kept.jsonl"
    kept.write_text("before\n")
    assert main(["bench", "stories", "nosuch", "--backend", "edgellm", "--output", str(kept)]) == 1
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("error: there is no model 'nosuch'\n\nhint: ")
    assert kept.read_text() == "before\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "edgellm", "--threads", "1,x"], "not a list of numbers"),
        (["--backend", "edgellm", "--output", "x.pdf"], "does not end with a known format"),
        (["--backend", "edgellm", "--output", "nowhere/at/all.json"], "there is no folder"),
        (["--backend", "mlxx"], "no backend"),
        (["dsik"], "there is no model 'dsik'"),
        (["--backend", "edgellm", "--dtype", "int3"], "dtype is"),
    ],
)
def test_wrong_options_are_said_before_anything_runs(arguments, said, capsys):
    assert main(["bench", *arguments]) in {1, 2}
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_budget_that_nothing_fits_is_refused_before_anything_runs(folder, tmp_path, capsys):
    kept = tmp_path / "kept.jsonl"
    kept.write_text("before\n")
    arguments = ["bench", "stories", str(folder), "--memory=1KB,2KB", "--output", str(kept)]
    assert main(arguments) == MemoryBudgetError.exit_code
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("error: ")
    assert kept.read_text() == "before\n"


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_ctrl_c_leaves_what_was_measured(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    lengths = ",".join(map(str, range(8, 308)))
    command = [sys.executable, "-m", "edgellm", "bench", str(folder), "--backend", "edgellm"]
    command += ["--prompt-tokens", lengths, "--gen-tokens", "0", "--repetitions", "2", "--json"]
    command += ["--threads", "1", "--output", str(out), "--output", str(tmp_path / "out.json")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        # however long it takes: the machine may be busy
        while not (out.exists() and out.read_bytes().count(b"\n") >= 2):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        printed, said = process.communicate()
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert said.decode().strip().endswith("interrupted")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert 2 <= len(lines) < 300
    document = json.loads((tmp_path / "out.json").read_text())
    assert len(document["records"]) == len(lines)
    assert json.loads(printed) == document
