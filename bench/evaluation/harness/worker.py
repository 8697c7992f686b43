"""A worker that runs tasks of lm-evaluation-harness on one model.

The first order says which model and how it is loaded, which tasks, and how they are asked (see
``run.py``); each task's questions are sent when they are answered.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.bench.evaluation.harness.adapter import Adapter
from edgellm.bench.evaluation.harness.library import (
    model_class,
    quieted,
    require_library,
    work_offline,
)
from edgellm.bench.evaluation.harness.samples import Outcome, outcome_of
from edgellm.bench.evaluation.harness.tasks import TaskFinder
from edgellm.bench.worker.protocol import Message, Send, error_message, foreign_error, run_worker
from edgellm.device import machine
from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.llm import LLM
from edgellm.open_llm import load
from edgellm.settings import LoadSettings


def serve(order: Message, requests: Iterator[Message], send: Send) -> None:
    """Load a model as the first order says, and send what came of each task."""
    require_library()
    if not order["download"]:
        work_offline()
    folder = None
    if order["folder"] is not None:
        folder = Path(order["folder"])
    with quieted():
        finder = TaskFinder(order["tasks"], folder=folder, run_code=order["run_code"])
        begun = time.perf_counter()
        with load(order["model"], LoadSettings(**order["load"])) as llm:
            send({"load_seconds": time.perf_counter() - begun})
            if order["chat"] and llm.tokenizer.chat_template is None:
                raise ConfigError(
                    "the model has no chat template", hint="leave out --chat: it completes text"
                )
            for name in order["tasks"]:
                try:
                    _run(name, finder, llm, order, send)
                except EdgeLLMError as error:
                    send({"task": name, "failure": error_message(error)})
    send({"done": True})


def _run(name: str, finder: TaskFinder, llm: LLM, order: Message, send: Send) -> None:
    """Run a task, or each task of a group, and send what came of it."""
    tasks = finder.load(name)

    def progress(done: int, total: int) -> None:
        send({"doing": f"{name}: {done} of {total} requests"})

    adapter = Adapter(
        llm,
        like_harness=order["like_harness"],
        seed=order["seed"],
        progress=progress,
    )
    read_before = llm.bytes_read
    results = _evaluate(adapter, tasks, llm, order)
    outcomes = {
        one: outcome_of(one, task, results["samples"][one], adapter.counts)
        for one, task in tasks.items()
    }
    for one, outcome in _pooled(name, outcomes).items():
        send(
            {
                "task": one,
                "shots": max(results["n-shot"].get(task, 0) for task in tasks),
                "seconds": adapter.seconds,
                "bytes_read": llm.bytes_read - read_before,
                "peak_memory_bytes": machine.peak_process_memory(),
                "layer_tokens": adapter.counts.layer_tokens,
                "head_rows": adapter.counts.head_rows,
                "prompt_hash": sha256("\n".join(outcome.prompts).encode()).hexdigest(),
                **{key: value for key, value in asdict(outcome).items() if key != "prompts"},
            }
        )


def _evaluate(
    adapter: Adapter, tasks: Mapping[str, Any], llm: LLM, order: Message
) -> Mapping[str, Any]:
    """Have the harness ask, and return its results. Raises EdgeLLMError."""
    from lm_eval import evaluate

    random.seed(order["seed"])
    np.random.seed(order["seed"])
    for task in tasks.values():
        shots = task.get_config("num_fewshot")
        if order["shots"] is not None and shots != 0:  # 0 in a task's file means never
            shots = order["shots"]
        task.set_config("num_fewshot", shots or 0)
        task.set_fewshot_seed(order["shot_seed"])
    try:
        # what simple_evaluate does besides takes seconds: it imports torch, and lists all packages
        results: Mapping[str, Any] = evaluate(
            model_class()(llm, adapter=adapter),
            {"tasks": tasks},
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
    return results


def _pooled(name: str, outcomes: Mapping[str, Outcome]) -> Mapping[str, Outcome]:
    """Return the questions of a group as those of one task, where all its tasks are alike."""
    first = next(iter(outcomes.values()))
    alike = all(
        (one.kind, one.headline, set(one.columns))
        == (first.kind, first.headline, set(first.columns))
        for one in outcomes.values()
    )
    if len(outcomes) == 1 or not alike:
        return outcomes
    pooled = Outcome(
        kind=first.kind,
        headline=first.headline,
        question_ids=[f"{task}:{one}" for task, oc in outcomes.items() for one in oc.question_ids],
        documents=[f"{task}:{one}" for task, oc in outcomes.items() for one in oc.documents],
        columns={
            column: [value for one in outcomes.values() for value in one.columns[column]]
            for column in first.columns
        },
        prompts=[prompt for one in outcomes.values() for prompt in one.prompts],
    )
    return {name: pooled}


if __name__ == "__main__":
    run_worker(serve)
