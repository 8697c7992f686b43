"""`edgellm plan`: budgets and machines that are not this one."""

import json

import pytest
from support import tiny


def test_plan_for_another_machine_is_limited_by_its_disk(run, model, paging_budget):
    options = ["--memory", paging_budget, "--context", 64, "--sim-disk", "2MB/s"]
    planned = json.loads(run("plan", model, *options, "--json")[1])
    assert planned["bound_by"] == "disk"
    assert planned["tokens_per_second"] == pytest.approx(2e6 / planned["bytes_per_token"])
    code, out, err = run("plan", model, *options)
    assert (code, err) == (0, "")
    assert "limited by the disk" in out
    assert f"{len(planned['pinned'])} of {tiny.LAYERS} layers" in out


def test_plan_takes_a_share_of_another_machines_memory(run, model):
    planned = json.loads(
        run("plan", model, "--memory", "50%", "--sim-ram", "16GB", "--sim-disk", "3GB/s", "--json")[
            1
        ]
    )
    assert planned["budget"] == 8 * 10**9
