"""Runs of the bench: workers that die, hang or lack something leave records."""

import sys
import time

import pytest

from edgellm.bench.machine.rates import Rates
from edgellm.bench.speed.speed import Speed
from edgellm.bench.speed.workload import Workload
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters.synthetic import synthesize

SMALL = {"prompt_tokens": (8,), "gen_tokens": (4,), "repetitions": 2, "timeout": 60.0}

DYING_AT_PROMPTS = """
import json, os, sys

def send(**message):
    print(json.dumps(message), flush=True)

json.loads(sys.stdin.readline())
known = {"device": "d", "arithmetic": "a", "weight_bytes_per_token": 10, "load_seconds": 1.0}
send(**known, read_rate=100.0, multiply_rate=None)
for line in sys.stdin:
    test = json.loads(line)["test"]
    send(seconds=0.5, joules=None, slept=False)
    if test["kind"] == "pp":
        sys.stderr.write("out of luck\\n"); sys.stderr.flush()
        os.abort()
    send(seconds=1.5, joules=3.0, slept=False)
    send(done=True, steps=[0.1, 0.2], peak_memory_bytes=7, energy_source="somebody")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("speed") / "model"
    synthesize("tiny-llama", path, bits=16)
    return path


def speed_of(workload, *worker, measure_rates=lambda threads: Rates(1e10, 1e11)):
    """Return the records of a run and what it showed, without measuring the processor itself."""
    said = []
    settings = {"worker": worker} if worker else {}
    run = Speed(workload, progress=said.append, measure_rates=measure_rates, **settings)
    return list(run.records()), said


def test_edgellm_is_measured_in_a_process_of_its_own(folder):
    workload = Workload(models=(str(folder),), depth=(0, 6), batch=(1, 2), threads=(1,), **SMALL)
    records, said = speed_of(workload)
    assert [record.error for record in records] == [None] * 8
    assert [(record.test, record.batch) for record in records[:4]] == [
        ("pp8", 1),
        ("tg4", 1),
        ("pp8 @ d6", 1),
        ("tg4 @ d6", 1),
    ]
    for record in records:
        assert len(record.seconds) == 2
        assert record.tokens_per_second > 0
        assert record.threads == 1
        assert record.bits == 16
        assert len(record.step_seconds) == (4 if record.test.startswith("tg") else 0)
        assert record.peak_memory_bytes > record.model_bytes
        assert record.roofline_share > 0
        assert record.load_seconds > 0
        assert record.environment["power"].keys() == {"source", "governor"}
    prompt, generation = records[0], records[1]
    checkpoint = read_checkpoint(folder)
    assert prompt.weight_bytes_per_token == checkpoint.nbytes - (
        checkpoint.embed_tokens.nbytes if checkpoint.lm_head else 0
    )
    assert prompt.time_to_first_token == prompt.median_seconds
    assert generation.time_to_first_token is None
    assert generation.step_p50 <= generation.step_p99
    assert max(status.number for status in said) == said[-1].total == 8


def test_a_worker_that_dies_leaves_a_record_and_the_rest_goes_on(folder):
    workload = Workload(models=(str(folder),), **SMALL)
    (prompt, generation), _ = speed_of(workload, sys.executable, "-c", DYING_AT_PROMPTS)
    assert prompt.error == "it was ended by SIGABRT: out of luck"
    assert prompt.seconds == (0.5,), "what it had measured is kept"
    assert generation.error is None
    assert generation.seconds == (0.5, 1.5)
    assert generation.energy_joules == (3.0,)
    assert generation.energy_source == "somebody"
    assert generation.floor_seconds == pytest.approx(4 * 10 / 100.0)
    assert generation.peak_memory_bytes == 7


def test_a_backend_that_a_signal_ended_has_a_way_round(tmp_path):
    (tmp_path / "some.gguf").touch()
    workload = Workload(
        models=(str(tmp_path / "some.gguf"),), backends=("llama.cpp", "llama.cpp-plain"), **SMALL
    )
    records, _ = speed_of(workload, sys.executable, "-c", DYING_AT_PROMPTS)
    assert "SIGABRT: out of luck (hint: use --backend llama.cpp-plain" in records[0].error
    assert [record.error for record in records[1:]] == [
        None,
        "it was ended by SIGABRT: out of luck",
        None,
    ]


def test_more_tokens_than_the_context_are_a_failure_and_the_rest_goes_on(folder):
    context = read_checkpoint(folder).config.max_position_embeddings
    workload = Workload(
        models=(str(folder),), **(SMALL | {"gen_tokens": (), "depth": (context - 7, 0)})
    )
    (beyond, inside), _ = speed_of(workload)
    assert beyond.error.startswith(f"pp8 @ d{context - 7} takes {context + 1} tokens, ")
    assert f"and the model's context is {context} (hint" in beyond.error
    assert beyond.seconds == ()
    assert (inside.test, inside.error) == ("pp8", None)


def test_a_worker_that_hangs_is_ended(folder):
    workload = Workload(models=(str(folder),), **(SMALL | {"timeout": 0.5}))
    begun = time.monotonic()
    (record,), _ = speed_of(workload, sys.executable, "-c", "import time; time.sleep(600)")
    assert "said nothing for 0.5 seconds" in record.error
    assert time.monotonic() - begun < 60


def test_a_missing_package_is_said_with_the_command_that_installs_it(folder):
    code = (
        "import sys; sys.modules['mlx_lm'] = None; from edgellm.bench.speed.worker import serve; "
        "from edgellm.bench.worker.protocol import run_worker; run_worker(serve)"
    )
    workload = Workload(models=(str(folder),), backends=("mlx-lm", "edgellm"), **SMALL)
    records, _ = speed_of(workload, sys.executable, "-c", code)
    assert [record.error is None for record in records] == [False, True, True]
    assert "pip install mlx-lm" in records[0].error


def test_a_model_that_is_not_there_fails_and_the_rest_goes_on(folder):
    workload = Workload(models=("nobody-has-this", str(folder)), **SMALL)
    records, _ = speed_of(workload)
    assert [record.test for record in records] == ["load", "pp8", "tg4"]
    assert "there is no model 'nobody-has-this'" in records[0].error
    assert records[1].error is None


def test_a_budget_pages_the_model(folder):
    memory = 2_500_000
    workload = Workload(models=(str(folder),), memory=(memory,), **SMALL)
    records, _ = speed_of(workload)
    assert [record.error for record in records] == [None, None]
    assert all(record.memory_bytes == memory for record in records)
    assert records[0].arithmetic.endswith("paged") or read_checkpoint(folder).nbytes < memory
