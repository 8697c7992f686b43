"""`edgellm doctor`: its checks, and its exit code."""

import json
from pathlib import Path

import pytest


def test_doctor_finds_this_machine_well(run, tmp_path):
    code, out, err = run("doctor", tmp_path, "--json")
    document = json.loads(out)
    assert [check for check in document["checks"] if not check["passed"]] == []
    assert (code, err, document["passed"]) == (0, "", True)
    assert document["disk"]["bytes_per_second"] > 0
    assert document["model"]["tokens_per_second"] > 0
    assert document["memory"]["total"] >= document["memory"]["available"] > 0
    assert document["packages"]["mlx"]
    assert list(tmp_path.iterdir()) == [], "what was written to measure the disk is gone"


def test_doctor_fails_where_a_check_does(run):
    if not Path("/proc").exists():
        pytest.skip("there is no folder without free space here")
    code, out, _ = run("doctor", "/proc")
    assert code == 1
    assert "\nFAILED  disk: /proc has 0 bytes free; " in out
    assert "\nok      bundled model: " in out, "the other checks are made all the same"


def test_doctor_wants_a_folder(run, tmp_path):
    assert run("doctor", tmp_path / "nowhere") == (
        2,
        "",
        f"error: there is no folder {tmp_path / 'nowhere'}\n\n"
        "hint: name a folder on the disk to measure\n",
    )
