"""The bench itself: what a workload consists of, and that workers which die, hang or lack something leave records."""

import sys
import time

import numpy as np
import pytest

from edgellm.bench.backends.registry import ENDPOINT
from edgellm.bench.records.record import SpeedRecord
from edgellm.bench.speed.speed import Speed, with_best_rates
from edgellm.bench.speed.timing import FIRST_ID, Clock, Trial, token_ids
from edgellm.bench.speed.variants import prepare_variant
from edgellm.bench.speed.workload import Test as BenchTest
from edgellm.bench.speed.workload import Workload, unused_options
from edgellm.bench.worker.status_line import time_left
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters.synthetic import synthesize
from edgellm.errors import BackendError, ConfigError, ModelNotFoundError

SMALL = {"prompt_tokens": (8,), "gen_tokens": (4,), "repetitions": 2, "timeout": 60.0}
SPEAKING = """
import json, os, sys
def say(**found): print(json.dumps(found), flush=True)
json.loads(sys.stdin.readline())
say(device="d", arithmetic="a", weight_bytes_per_token=10, load_seconds=1.0, read_rate=100.0, multiply_rate=None)
for line in sys.stdin:
    test = json.loads(line)["test"]
    say(seconds=0.5, joules=None, slept=False)
    if test["kind"] == "pp":
        sys.stderr.write("out of luck\\n"); sys.stderr.flush()
        os.abort()
    say(seconds=1.5, joules=3.0, slept=False)
    say(done=True, steps=[0.1, 0.2], peak_memory_bytes=7, energy_source="somebody")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("speed") / "model"
    synthesize("tiny-llama", path, bits=16)
    return path


def speed_of(workload, *worker):
    said = []
    records = list(
        Speed(workload, progress=said.append, **({"worker": worker} if worker else {})).records()
    )
    return records, said


def test_a_workload_is_the_cross_product_without_what_means_nothing():
    workload = Workload(
        models=("m", "n"),
        backends=("mlx", "mlx-lm", ENDPOINT),
        threads=(1, 2),
        memory=(None, 10**9),
        bits=(4, 8),
        prompt_tokens=(16, 32),
        gen_tokens=(8, 0),
        depth=(0, 64),
        batch=(1, 4),
        endpoint="http://localhost",
    )
    sessions = workload.sessions()
    counts = {
        name: sum(session.backend == name for session in sessions) for name in workload.backends
    }
    assert counts == {"mlx": 2 * 2 * 2 * 2, "mlx-lm": 2 * 2, ENDPOINT: 2}
    assert len(set(sessions)) == len(sessions)
    assert {session.settings.threads for session in sessions if session.backend == "mlx-lm"} == {
        None
    }
    tests = workload.tests()
    assert len(tests) == 2 * 2 * 3
    assert [test.name for test in tests[:6]] == [
        "pp16",
        "pp32",
        "tg8",
        "pp16 @ d64",
        "pp32 @ d64",
        "tg8 @ d64",
    ]
    assert {test.batch for test in tests} == {1, 4}
    assert all(session.settings.context == 64 + 32 + 2 for session in sessions)
    assert len(unused_options(workload)) == 4


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"backends": ("lama.cpp",)}, "no backend 'lama.cpp'"),
        ({"batch": (0,)}, "batch is 0"),
        ({"depth": (-1,)}, "depth is -1"),
        ({"threads": (2, 0)}, "threads is 0"),
        ({"threads": (5000,)}, "threads is 5000"),
        ({"bits": (7,)}, "bits is 7"),
        ({"repetitions": 0}, "repetitions is 0"),
        ({"prompt_tokens": (0,), "gen_tokens": (0,)}, "nothing to measure"),
        ({"backends": (ENDPOINT,)}, "needs a URL"),
    ],
)
def test_a_workload_is_checked_before_anything_runs(wrong, said):
    with pytest.raises(ConfigError, match=said) as caught:
        Workload(models=("m",), **wrong)
    assert caught.value.hint


def test_the_same_ids_go_to_everyone():
    ids = token_ids(100, 32_000, 3)
    assert ids.shape == (3, 100)
    assert ids.min() >= FIRST_ID
    np.testing.assert_array_equal(ids[:, :10], token_ids(10, 128_256, 3))
    assert len({tuple(row) for row in ids}) == 3
    assert token_ids(100, 16, 1).max() < 16


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
    (prompt, generation), _ = speed_of(workload, sys.executable, "-c", SPEAKING)
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
    records, _ = speed_of(workload, sys.executable, "-c", SPEAKING)
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
    assert beyond.error.startswith(
        f"pp8 @ d{context - 7} takes {context + 1} tokens, and the model's context is {context} (hint"
    )
    assert beyond.seconds == ()
    assert (inside.test, inside.error) == ("pp8", None)


def test_the_best_rates_of_a_run_count_for_all_of_it():
    common = {
        "model": "m",
        "backend": "mlx",
        "environment": {},
        "weight_bytes_per_token": 10**9,
        "tokens": 2,
        "seconds": (1.0,),
    }
    busy, quiet, elsewhere, failed = (
        SpeedRecord(
            **common,
            device=device,
            test=test,
            read_gbps=rate,
            compute_gflops=flops,
            flops=4e9,
            threads=2,
        )
        for device, test, rate, flops in (
            ("a", "tg2", 2.0, 100.0),
            ("a", "pp2", 8.0, 2.0),
            ("b", "tg2", 4.0, None),
            ("a", "load", None, None),
        )
    )
    found = with_best_rates([busy, quiet, elsewhere, failed])
    assert [record.read_gbps for record in found] == [8.0, 8.0, 4.0, None]
    assert [record.compute_gflops for record in found] == [100.0, 100.0, None, None]
    assert found[0].roofline_share == pytest.approx(2 / 8)
    assert found[1].roofline_share == pytest.approx(1 / 8), "a prompt reads the weights once"
    assert found[3] == failed


def test_a_worker_that_hangs_is_ended(folder):
    workload = Workload(models=(str(folder),), **(SMALL | {"timeout": 0.5}))
    begun = time.monotonic()
    (record,), _ = speed_of(workload, sys.executable, "-c", "import time; time.sleep(600)")
    assert "said nothing for 0.5 seconds" in record.error
    assert time.monotonic() - begun < 60


def test_a_missing_package_is_said_with_the_command_that_installs_it(folder):
    masked = "import sys; sys.modules['mlx_lm'] = None; from edgellm.bench.speed.worker import main; main()"
    workload = Workload(models=(str(folder),), backends=("mlx-lm", "mlx"), **SMALL)
    records, _ = speed_of(workload, sys.executable, "-c", masked)
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


def test_bits_are_made_once_of_a_16_bit_model(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    made = prepare_variant(str(folder), 4, "mlx")
    assert (made.bits, made.vocabulary) == (4, read_checkpoint(folder).config.vocab_size)
    before = made.path.stat().st_mtime_ns
    assert prepare_variant(str(folder), 4, "mlx") == made
    assert made.path.stat().st_mtime_ns == before
    assert prepare_variant(str(folder), 16, "mlx").path == folder
    with pytest.raises(BackendError, match="is stored with 4 bits"):
        prepare_variant(str(made.path), 8, "mlx")


def test_a_file_for_a_backend_that_reads_folders(tmp_path):
    with pytest.raises(BackendError, match="opens no GGUF"):
        prepare_variant(str(tmp_path / "x.gguf"), None, "mlx")
    with pytest.raises(ModelNotFoundError):
        prepare_variant(str(tmp_path / "x.gguf"), None, "llama.cpp")


class Counting:
    """A runtime that only counts what it is asked."""

    device = arithmetic = "none"
    weight_bytes_per_token = None

    def __init__(self):
        self.asked = []

    def begin(self, *, batch, capacity):
        self.asked.append(("begin", batch, capacity))

    def prefill(self, tokens):
        self.asked.append(("prefill", tokens.shape))

    def decode(self, count):
        self.asked.append(("decode", count))


class Times:
    """A clock that goes on by what it is told to at each reading."""

    def __init__(self, *steps):
        self.now, self.steps = 0.0, list(steps)

    def __call__(self):
        self.now += self.steps.pop(0) if self.steps else 1.0
        return self.now


def test_a_repetition_that_the_machine_slept_through_is_marked_and_done_again():
    awake, wall = Times(), Times(1.0, 3600.0)  # an hour passes within the first repetition
    trial = Trial(Counting(), BenchTest("tg", 5), None, meter=None, clock=Clock(awake, wall))
    samples = list(trial.repetitions(3, 1e9))
    assert [sample.slept for sample in samples] == [True, False, False, False]


def test_repetitions_end_when_their_time_is_over_but_one_is_always_there():
    trial = Trial(Counting(), BenchTest("pp", 5), None, meter=None, clock=Clock(Times(), Times()))
    assert len(list(trial.repetitions(10, 0.0))) == 1
    assert len(list(trial.repetitions(10, 8.5))) < 10


def test_what_is_timed_is_only_what_the_test_names():
    runtime = Counting()
    trial = Trial(runtime, BenchTest("tg", 5, depth=7, batch=2), None, meter=None, clock=Clock())
    list(trial.repetitions(1, 10))
    assert runtime.asked == [("begin", 2, 13), ("prefill", (2, 7)), ("decode", 5)]
    runtime.asked.clear()
    trial = Trial(runtime, BenchTest("pp", 5, depth=7), None, meter=None, clock=Clock())
    list(trial.repetitions(1, 10))
    assert runtime.asked == [("begin", 1, 13), ("prefill", (1, 7)), ("prefill", (1, 5))]


def test_the_time_that_is_left():
    assert time_left(10.0, 0, 5) == ""
    assert time_left(10.0, 2, 4) == "10 s left"
    assert time_left(600.0, 1, 3) == "20 min left"
