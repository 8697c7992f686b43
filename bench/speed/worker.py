"""A process of its own that holds one model in one runtime, and measures what it is told to.

It speaks lines of JSON: standard input says what to do, and standard output what was found. The
first line names the runtime and the model; each one after it a test. It ends when standard input
does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

from edgellm.bench.backends.registry import (
    ENDPOINT,
    HasVocabulary,
    OnDevice,
    Runtime,
    RuntimeSettings,
    open_runtime,
)
from edgellm.bench.machine.energy import Meter, find_meter
from edgellm.bench.speed.timing import Clock, Trial
from edgellm.bench.speed.workload import Test
from edgellm.errors import BackendError, EdgeLLMError

Say = Callable[[Mapping[str, Any]], None]


def main() -> None:
    """Load what the first line names, then serve."""
    say = speaker()
    order = json.loads(sys.stdin.readline())
    with telling(say):
        if order["backend"] == ENDPOINT:
            from edgellm.bench.backends.openai_endpoint import serve_endpoint

            serve_endpoint(order, sys.stdin, say)
            return
        serve(order, sys.stdin, say)


@contextmanager
def telling(say: Say) -> Iterator[None]:
    """Within it an error, whoever's it is, is said instead of raised."""
    try:
        yield
    except EdgeLLMError as error:
        say(failure(error))
    except MemoryError:
        say(failure(BackendError("there is not enough memory")))
    except Exception as error:  # a foreign runtime may raise anything
        say(failure(foreign(error)))


def serve(order: Mapping[str, Any], lines: IO[str], say: Say) -> None:
    """Load a model, say what it is, and do the tests that come."""
    begun = time.perf_counter()
    runtime = open_runtime(order["backend"], order["model"], RuntimeSettings(**order["settings"]))
    load_seconds = time.perf_counter() - begun
    rates = runtime.measure_rates() if isinstance(runtime, OnDevice) else None
    meter = find_meter(gpu=rates is not None)
    try:
        say(
            {
                "device": runtime.device,
                "arithmetic": runtime.arithmetic,
                "weight_bytes_per_token": runtime.weight_bytes_per_token,
                "load_seconds": load_seconds,
                "read_rate": rates.bytes_per_second if rates else None,
                "multiply_rate": rates.flops_per_second if rates else None,
            }
        )
        for line in lines:
            _do(runtime, json.loads(line), meter, say)
    finally:
        if meter is not None:
            meter.close()
        runtime.close()


def failure(error: EdgeLLMError) -> dict[str, Any]:
    """What is said of an error."""
    return {"error": error.message, "hint": error.hint}


def _do(runtime: Runtime, order: Mapping[str, Any], meter: Meter | None, say: Say) -> None:
    """Do a test; one that fails says so, and the next may go well."""
    vocabulary = runtime.vocabulary if isinstance(runtime, HasVocabulary) else order["vocabulary"]
    trial = Trial(runtime, Test(**order["test"]), vocabulary, meter=meter, clock=Clock())
    try:
        trial.warm_up()
        say({"warm": True})
        for sample in trial.repetitions(order["repetitions"], order["max_seconds"]):
            say({"seconds": sample.seconds, "joules": sample.joules, "slept": sample.slept})
        steps = list(trial.steps(order["max_seconds"] / 2))
    except EdgeLLMError as error:
        say(failure(error))
        return
    say(
        {
            "done": True,
            "steps": steps,
            "peak_memory_bytes": _peak(runtime),
            "energy_source": meter and meter.source,
        }
    )


def _peak(runtime: Runtime) -> int:
    on_device = runtime.peak_device_memory() if isinstance(runtime, OnDevice) else None
    if on_device is not None:
        return on_device
    from edgellm.device import machine as device

    return device.peak_process_memory()


def foreign(error: Exception) -> BackendError:
    """An error that is not ours, in our words."""
    words = " ".join(str(error).split())[:400]
    return BackendError(f"{type(error).__name__}: {words}" if words else type(error).__name__)


def speaker() -> Say:
    """Take standard output for ourselves: what libraries print there goes to standard error."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def say(found: Mapping[str, Any]) -> None:
        with suppress(BrokenPipeError):  # whoever asked has gone; the end of standard input follows
            own.write(json.dumps(found) + "\n")

    return say


if __name__ == "__main__":
    main()
