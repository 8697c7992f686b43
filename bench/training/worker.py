"""A worker that trains by one technique, once, and says what it took.

The only order is the task. It answers ``{"opened": true}``, a message for each step, and
``{"done": true}`` with sizes and losses (see ``bench.worker.protocol``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from edgellm.bench.training.task import Task
from edgellm.bench.training.trainer import trainer_class
from edgellm.bench.worker.protocol import Message, Send, run_worker
from edgellm.device import machine
from edgellm.errors import NotFiniteError

CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What Linux resets a process's peak of memory at."""


def serve(order: Message, _: Iterator[Message], send: Send) -> None:
    """Do the task that ``order`` is."""
    task = Task.of_order(order)
    make = trainer_class(task.technique.backend)
    make.warm_up(task)
    start = machine.process_memory()
    trainer = make(task)
    try:
        loading_peak = machine.peak_process_memory()
        send({"opened": True, "device": trainer.device, "arithmetic": trainer.arithmetic})
        reset_peak()
        processor_time = time.process_time()

        def report(loss: float, seconds: float) -> None:
            nonlocal processor_time
            now = time.process_time()
            taken, processor_time = now - processor_time, now
            if not math.isfinite(loss):
                raise NotFiniteError(f"the loss is {loss}", hint="give a smaller --rate")
            send({"loss": loss, "seconds": seconds, "cpu_seconds": taken})

        trainer.train(report)
        training_peak = machine.peak_process_memory()
        on_device = trainer.device_peak()
        send(
            {
                "done": True,
                "loss_after": trainer.loss_after(),
                "memory": trainer.memory,
                "allocator_peak": trainer.allocator_peak(),
                "start": 0 if on_device is not None else start,
                "training_peak": on_device or training_peak,
                "peak": on_device or max(loading_peak, training_peak),
                **asdict(trainer.sizes()),
            }
        )
    finally:
        trainer.close()


def reset_peak() -> None:
    """Forget the most that this process has held so far, where the system lets us."""
    with suppress(OSError):
        CLEAR_REFS.write_text(RESET_PEAK)


if __name__ == "__main__":
    run_worker(serve)
