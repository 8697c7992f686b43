"""A worker that asks one model the tasks of lm-evaluation-harness.

The first order says which model and how it is loaded, which tasks, and how they are asked (see
``run.py``); what came of each task is sent as it is done (see ``bench.worker.protocol``).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.bench.evaluation.harness.adapter import Adapter
from edgellm.bench.evaluation.harness.generation_settings import decoding_name
from edgellm.bench.evaluation.harness.library import (
    allow_code,
    model_class,
    quieted,
    require_library,
    work_offline,
)
from edgellm.bench.evaluation.harness.samples import outcome_of, pooled
from edgellm.bench.evaluation.harness.tasks import TaskFinder
from edgellm.bench.evaluation.loaded_model import loaded
from edgellm.bench.worker.protocol import Message, Send, error_message, foreign_error, run_worker
from edgellm.device import machine
from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.llm import LLM


def serve(order: Message, requests: Iterator[Message], send: Send) -> None:
    """Load a model as the first order says, and send what came of each task."""
    require_library()
    if not order["download"]:
        work_offline()
    if order["run_code"]:
        allow_code()
    folder = None
    if order["folder"] is not None:
        folder = Path(order["folder"])
    with quieted():
        finder = TaskFinder(order["tasks"], folder=folder, run_code=order["run_code"])
        with loaded(order, send) as llm:
            if order["chat"] and llm.tokenizer.chat_template is None:
                raise ConfigError(
                    "the model has no chat template", hint="leave out --chat: it completes text"
                )
            for request in requests:
                try:
                    _ask({**order, **request}, finder, llm, send)
                except EdgeLLMError as error:
                    send(error_message(error))


def _ask(order: Mapping[str, Any], finder: TaskFinder, llm: LLM, send: Send) -> None:
    """Ask a task, or all tasks of a group, and send what came of them."""
    name = order["task"]
    tasks = finder.load(name)
    adapter = Adapter(
        llm,
        like_harness=order["like_harness"],
        seed=order["seed"],
        progress=lambda done, total: send({"doing": f"{done} of {total} requests"}),
    )
    parts = {}
    read_before, seconds, shots = llm.bytes_read, {}, 0
    for one, task in tasks.items():
        before = adapter.seconds
        samples = _evaluate(adapter, one, task, llm, order)
        parts[one] = outcome_of(one, task, samples, adapter.counts, chat=order["chat"])
        seconds[one] = adapter.seconds - before
        shots = max(shots, task.get_config("num_fewshot"))
    whole = pooled(parts)
    if whole is not None and len(parts) > 1:
        parts, seconds = {name: whole}, {name: adapter.seconds}
    common: dict[str, Any] = {"peak_memory_bytes": machine.peak_process_memory(), "shots": shots}
    if len(parts) == 1:  # of several tasks, nobody knows whose part is how large
        common |= {
            "bytes_read": llm.bytes_read - read_before,
            "layer_tokens": adapter.counts.layer_tokens,
            "head_rows": adapter.counts.head_rows,
        }
    for one, outcome in parts.items():
        decoding = None
        if outcome.kind == "answer":
            decoding = decoding_name(next(iter(tasks.values())).get_config("generation_kwargs"))
        fields = asdict(outcome) | {"task_kind": outcome.kind, "decoding": decoding}
        del fields["kind"]
        send({"task": one, "seconds": [seconds[one]], **common, **fields})
    send({"done": True})


def _evaluate(
    adapter: Adapter, name: str, task: Any, llm: LLM, order: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Have the harness ask a task, and return what it has noted. Raises EdgeLLMError."""
    from lm_eval import evaluate

    random.seed(order["seed"])
    np.random.seed(order["seed"])
    shots = task.get_config("num_fewshot")
    if order["shots"] is not None and shots != 0:  # 0 in a task's file means never
        shots = order["shots"]
    task.set_config("num_fewshot", shots or 0)
    task.set_fewshot_seed(order["shot_seed"])
    try:
        # what simple_evaluate does besides takes seconds: it imports torch, and lists all packages
        results = evaluate(
            model_class()(llm, adapter=adapter),
            {"tasks": {name: task}},
            limit=order["limit"],
            apply_chat_template=order["chat"],
            fewshot_as_multiturn=order["chat"],
            bootstrap_iters=0,
            confirm_run_unsafe_code=order["run_code"],
        )
    except EdgeLLMError:
        raise
    except Exception as error:  # of the harness, or of a task's own code
        raise foreign_error(error) from error
    samples: list[Mapping[str, Any]] = results["samples"][name]
    return samples


if __name__ == "__main__":
    run_worker(serve)
