"""A worker that holds one model in one runtime and times the tests that it is sent.

The first order names the backend, the model and its settings; each one after it a test. What the
bench hears of a test is ``{"warm": true}``, a message for each repetition, and ``{"done": true}``
with what is known at its end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from edgellm.bench.backends.registry import (
    ENDPOINT,
    HasVocabulary,
    OnDevice,
    OnMachines,
    Runtime,
    RuntimeSettings,
    open_runtime,
)
from edgellm.bench.machine.energy import EnergyMeter, find_meter
from edgellm.bench.speed.timing import Clock, Trial
from edgellm.bench.speed.workload import Test
from edgellm.bench.worker.protocol import Message, Send, error_message, run_worker
from edgellm.device import machine
from edgellm.errors import EdgeLLMError


def serve(order: Message, tests: Iterator[Message], send: Send) -> None:
    """Load a model, or connect to a server; send what it is, and do the tests that come."""
    if order["backend"] == ENDPOINT:
        from edgellm.bench.speed.endpoint_worker import serve_endpoint

        return serve_endpoint(order, tests, send)
    begun = time.perf_counter()
    runtime = open_runtime(order["backend"], order["model"], RuntimeSettings(**order["settings"]))
    load_seconds = time.perf_counter() - begun
    rates = runtime.measure_rates() if isinstance(runtime, OnDevice) else None
    cluster = runtime.cluster_fields() if isinstance(runtime, OnMachines) else {}
    meter = None
    # what other machines and further GPUs need, no counter here knows
    if not cluster and not (rates and order["settings"]["tensor_parallel"] > 1):
        meter = find_meter(gpu=rates is not None)
    try:
        send(
            {
                "cluster": cluster,
                "device": runtime.device,
                "arithmetic": runtime.arithmetic,
                "weight_bytes_per_token": runtime.weight_bytes_per_token,
                "load_seconds": load_seconds,
                "read_rate": rates and rates.bytes_per_second,
                "multiply_rate": rates and rates.flops_per_second,
            }
        )
        for test in tests:
            _run_test(runtime, test, meter, send)
    finally:
        if meter is not None:
            meter.close()
        runtime.close()


def _run_test(runtime: Runtime, order: Message, meter: EnergyMeter | None, send: Send) -> None:
    """Do one test; an error of ours ends this test alone, and the next one may go well."""
    vocabulary = order["vocabulary"]
    if isinstance(runtime, HasVocabulary):
        vocabulary = runtime.vocabulary
    trial = Trial(runtime, Test(**order["test"]), vocabulary, meter=meter, clock=Clock())
    try:
        trial.warm_up()
        send({"warm": True})
        for sample in trial.repetitions(order["repetitions"], order["max_seconds"]):
            send({"seconds": sample.seconds, "joules": sample.joules, "slept": sample.slept})
        steps = list(trial.steps(order["max_seconds"] / 2))
    except EdgeLLMError as error:
        send(error_message(error))
        return
    source = meter and meter.source
    peak = _peak_memory(runtime)
    send({"done": True, "steps": steps, "peak_memory_bytes": peak, "energy_source": source})


def _peak_memory(runtime: Runtime) -> int:
    """Return the most bytes of GPU memory that were held, or of the process where it has none."""
    if isinstance(runtime, OnDevice) and (peak := runtime.peak_device_memory()) is not None:
        return peak
    return machine.peak_process_memory()


if __name__ == "__main__":
    run_worker(serve)
