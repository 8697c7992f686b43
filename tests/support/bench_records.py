"""Records for tests of the bench: a machine, a speed on it, and speeds of any kind."""

from hypothesis import strategies as st

from edgellm.bench.records.evaluation import EvaluationRecord
from edgellm.bench.records.kinds import QueryRecord
from edgellm.bench.records.record import SpeedRecord
from edgellm.bench.records.serving import ServingRecord
from edgellm.bench.records.training import TrainingRecord

MACHINE = {
    "chip": "A chip",
    "cores": 4,
    "memory_bytes": 8 * 10**9,
    "system": "Linux",
    "time": "2026-01-01T00:00:00Z",
}
COMMON = {"model": "m", "backend": "edgellm", "device": "A chip", "environment": MACHINE}
"""What every record must have, its test left out."""

texts = st.text(max_size=20)
seconds = st.lists(st.floats(1e-6, 1e4), max_size=6).map(tuple)
speed_records = st.builds(
    SpeedRecord,
    model=texts,
    backend=st.sampled_from(["edgellm", "cpu", "llama.cpp"]) | texts,
    device=texts,
    test=st.sampled_from(["pp512", "tg128", "tg128 @ d64", "load"]),
    environment=st.just(MACHINE) | st.dictionaries(texts, texts | st.none(), max_size=3),
    tokens=st.integers(1, 10**6),
    seconds=seconds,
    threads=st.none() | st.integers(1, 64),
    batch=st.integers(1, 64),
    bits=st.none() | st.sampled_from([4, 8, 16]),
    memory_bytes=st.none() | st.integers(1, 10**12),
    peak_memory_bytes=st.none() | st.integers(1, 10**12),
    weight_bytes_per_token=st.none() | st.integers(1, 10**12),
    floor_seconds=st.none() | st.floats(1e-9, 1e3),
    step_seconds=seconds,
    energy_joules=seconds,
    read_gbps=st.none() | st.floats(0.1, 1e4),
    error=st.none() | texts.filter(bool),
)


def speed(**more):
    """A generation of 32 tokens in about a second."""
    return SpeedRecord(
        **(COMMON | {"test": "tg32", "tokens": 32, "seconds": (1.0, 1.1, 1.2)} | more)
    )


def training(**more):
    """A LoRA of two timed steps, whose memory is known part by part."""
    measured = {
        "test": "LoRA",
        "method": "lora",
        "tokens": 128,
        "batch": 4,
        "steps": 3,
        "seconds": (1.0, 2.0),
        "step_tokens": (512, 512),
        "cpu_seconds": (1.5, 2.5),
        "layers": 8,
        "pinned_layers": 8,
        "numbers": 1000,
        "start_bytes": 100_000_000,
        "weight_bytes": 20_000_000,
        "gradient_bytes": 4_000,
        "optimizer_bytes": 8_000,
        "training_peak_bytes": 150_000_000,
        "peak_memory_bytes": 160_000_000,
        "losses": (3.0, 2.5, 2.0),
        "loss_after": 2.1,
    }
    return TrainingRecord(**(COMMON | measured | more))


def query(**more):
    """An answer of a token in a second, without a score."""
    return QueryRecord(**(COMMON | {"test": "query", "tokens": 1, "seconds": (1.0,)} | more))


def serving(**more):
    """A server under 8 users, in two turns."""
    samples = {
        "first_token_seconds": (0.1, 0.1),
        "latency_seconds": (2.0, 2.0),
        "answer_tokens": (10, 10),
        "gap_seconds": (0.1, 0.2),
        "turn_tokens": (50, 100),
    }
    usual = {"test": "pp32+tg64", "seconds": (1.0, 2.0), "batch": 8, "finished": 4}
    return ServingRecord(**(COMMON | usual | samples | {"client_seconds": 0.3} | more))


def evaluation(correct, **more):
    """Four-way choices, of which these (0 or 1 each) are right."""
    count = len(correct)
    ids = tuple(f"q{number}" for number in range(count))
    columns = {
        "correct": tuple(map(float, correct)),
        "right_logprob": tuple(-1.0 - 2.0 * (1 - right) for right in correct),
        "tie": (0.0,) * count,
        "cut": (0.0,) * count,
    }
    usual = {
        "test": "eval",
        "task": "tickets",
        "task_kind": "choose",
        "headline": "accuracy",
        "metrics": {"accuracy": sum(correct) / count},
        "question_ids": ids,
        "question_hashes": ids,
        "documents": ids,
        "columns": columns,
        "prompt_hash": "a",
        "seconds": (2.0,),
        "bits": 16,
        "model_bytes": 16_000_000,
        "first_token_seconds": (0.1, 0.2),
        "step_seconds": (0.01, 0.02),
    }
    return EvaluationRecord(**(COMMON | usual | more))
