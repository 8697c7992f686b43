"""`edgellm bench train` on the command line: rows, and reasons in the place of rows."""

import json
import subprocess
import sys

import mlx.core as mx
import pytest
from support.without import without

from edgellm.cli.app import main

QUICK = [
    "--steps",
    "2",
    "--turns",
    "1",
    "--tokens",
    "8",
    "--batch",
    "2",
    "--rank",
    "2",
    "--threads",
    "1",
]


@pytest.fixture
def folder(tiny_folder):
    return str(tiny_folder("llama-3.2", dtype=mx.bfloat16))


def test_rows_are_measured_and_a_missing_library_is_one_too(folder, tmp_path):
    page, kept = tmp_path / "training.html", tmp_path / "training.json"
    command = [sys.executable, "-m", "edgellm", "bench", "train", folder, *QUICK]
    more = ["--technique", "lora", "--memory", "1MB", "--accumulation", "1", "--json"]
    outputs = ["--backend", "edgellm,peft", "--output", str(page), "--output", str(kept)]
    done = subprocess.run(
        [*command, *more, *outputs],
        env=without("torch", "peft"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    said = done.stdout
    records = json.loads(said)["records"]
    assert json.loads(kept.read_text())["records"] == records
    by_title = {(record["backend"], record["test"]): record for record in records}
    resident = by_title["edgellm", "LoRA"]
    assert resident["error"] is None
    assert len(resident["losses"]) == 2
    assert resident["loss_after"] < resident["loss_before"] == resident["losses"][0]
    assert resident["pinned_layers"] == resident["layers"] == 4
    assert len(resident["seconds"]) == 1
    assert resident["step_tokens"] == [16]
    assert resident["optimizer_bytes"] == 2 * resident["gradient_bytes"]
    assert "give --memory" in by_title["edgellm", "LoRA, paged 1 MB"]["error"]
    reason = by_title["peft", "any technique"]["error"]
    assert "torch" in reason
    assert "pip install" in reason
    known = ("start_bytes", "weight_bytes", "gradient_bytes", "optimizer_bytes")
    rest = resident["training_peak_bytes"] - sum(resident[name] for name in known)
    assert resident["activation_bytes"] == max(0, rest)
    assert "Training" in page.read_text()


def test_what_cannot_be_measured_is_refused_before_anything_is(folder, capsys):
    assert main(["bench", "train", folder, "--backend", "torchtune"]) == 2
    assert "one of edgellm, mlx-lm, peft, cuda" in capsys.readouterr().err
    command = ["bench", "train", folder, "--backend", "edgellm"]
    assert main([*command, "--batch", "3", "--accumulation", "2"]) == 2
    assert "--batch a multiple of 2" in capsys.readouterr().err
    assert main(["bench", "train", folder, "--backend", "peft", "--technique", "qlora"]) == 2
    assert "--technique lora" in capsys.readouterr().err
