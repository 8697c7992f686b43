"""`edgellm doctor`: its checks, and its exit code."""

import json
from pathlib import Path

import pytest
from support.clusters import write_hosts
from support.ports import free_ports

from edgellm.distributed.links.secret import new_secret


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


@pytest.mark.slow
def test_machines_that_could_not_be_measured_are_named_beside_the_block(run, tmp_path):
    [port] = free_ports(1)
    hosts = write_hosts(tmp_path, [port], new_secret())
    code, out, err = run("doctor", tmp_path, "--peers", hosts)
    assert code == 1
    assert "machine 2: machine 2 cannot be reached at its address" in out
    assert str(port) not in out
    assert f"error: machines that could not be measured: 2 (127.0.0.1:{port})" in err
