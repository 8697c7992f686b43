"""`edgellm plan`: budgets and machines that are not this one."""

import json
from pathlib import Path

import pytest
from support import tiny

import edgellm
from edgellm.errors import MemoryBudgetError
from edgellm.tokenizer import Tokenizer


def test_plan_for_another_machine_is_limited_by_its_disk(run, model, paging_budget):
    options = ["--memory", paging_budget, "--context", 64, "--sim-disk", "2MB/s"]
    planned = json.loads(run("plan", model, *options, "--json")[1])
    assert planned["bound_by"] == "disk"
    assert planned["tokens_per_second"] == pytest.approx(2e6 / planned["bytes_per_token"])
    code, out, err = run("plan", model, *options)
    assert (code, err) == (0, "")
    assert "limited by the disk" in out
    assert f"{len(planned['pinned'])} of {tiny.LAYERS} layers" in out


@pytest.mark.parametrize("more", [{}, {"beams": 4}, {"kv_bits": 8}, {"backend": "mlx"}])
def test_what_plan_refuses_generate_and_load_refuse_in_the_same_words(run, model, more):
    options = ["--memory", "100KB"]
    for name, value in more.items():
        options += [f"--{name.replace('_', '-')}", value]
    code, out, err = run("plan", model, *options, "--context", 24, "--json")
    assert (code, out) == (3, "")
    ids = len(Tokenizer.from_folder(Path(model), vocab_size=tiny.VOCABULARY).encode("Once upon"))
    text = ["-p", "Once upon", "--max-tokens", 24 - ids]
    assert run("generate", model, *options, *text, "--json") == (3, "", err)
    with pytest.raises(MemoryBudgetError) as raised:
        edgellm.load(model, memory="100KB", context=24, **more)
    assert err == f"error: {raised.value.message}\n\nhint: {raised.value.hint}\n"


def test_what_plan_takes_generate_runs(run, model):
    with pytest.raises(MemoryBudgetError) as raised:
        edgellm.load(model, memory=1, context=64, beams=4)
    least = raised.value.hint.partition("--memory ")[2].partition(" ")[0]
    options = ["--memory", least, "--context", 64, "--beams", 4]
    planned = json.loads(run("plan", model, *options, "--json")[1])
    code, out, _ = run("generate", model, *options, "-p", "Once", "--max-tokens", 8, "--json")
    assert code == 0
    assert json.loads(out)["budget_bytes"] == planned["budget"]
    assert json.loads(out)["context"] == planned["context"] == 64


def test_plan_takes_a_share_of_another_machines_memory(run, model):
    planned = json.loads(
        run("plan", model, "--memory", "50%", "--sim-ram", "16GB", "--sim-disk", "3GB/s", "--json")[
            1
        ]
    )
    assert planned["budget"] == 8 * 10**9


def test_plan_of_training_says_the_memory_that_training_takes(run, model):
    options = ["--rank", 4, "--on", "all", "--batch", 2, "--max-tokens", 32]
    planned = json.loads(run("plan", model, "--train", *options, "--sim-ram", "8GB", "--json")[1])
    assert planned["total"] == sum(planned["parts"].values())
    assert planned["step_tokens"] == 64
    code, out, err = run("plan", model, "--train", *options, "--memory", "1MB")
    assert (code, out) == (3, "")
    assert f"give --memory {planned['least'] // 1_000_000}MB" in err
    code, out, err = run("plan", model, "--train", *options, "--memory", planned["least"])
    assert (code, err) == (0, "")
    for said in ("kept inputs", "least memory", "arithmetic", "time a step"):
        assert said in out


@pytest.mark.parametrize(
    "options", [["--rank", 8], ["--train", "--context", 64], ["--train", "--beams", 2]]
)
def test_options_of_another_plan_are_refused(run, model, options):
    code, out, err = run("plan", model, *options)
    assert (code, out) == (2, "")
    assert "leave them out" in err


def test_plan_of_a_model_that_is_learned_whole_counts_every_number(run, model):
    code, out, err = run("plan", model, "--train", "--full", "--batch", 2, "--json")
    assert (code, err) == (0, "")
    planned = json.loads(out)
    info = json.loads(run("info", model, "--json")[1])
    assert planned["learned"] == info["parameters"]
    assert planned["total"] == sum(planned["parts"].values())
    assert planned["is_measured"]
    code, out, err = run("plan", model, "--train", "--full", "--batch", 2, "--memory", "1MB")
    assert (code, out) == (3, "")
    assert f"give --memory {planned['least'] // 1_000_000}MB" in err
