"""A worker for one model and number of threads: it loads the model and answers questions.

The first order says what to load and how tokens are drawn, each one after it what to answer (see
``bench.worker.protocol``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from edgellm.bench.worker.protocol import Message, Send, error_message, run_worker
from edgellm.errors import EdgeLLMError
from edgellm.llm import LLM
from edgellm.open_llm import load
from edgellm.settings import LoadSettings, Sampling


def serve(order: Message, requests: Iterator[Message], send: Send) -> None:
    """Load a model as the first order says, then answer what each of the others asks."""
    sampling = Sampling(**order["sampling"])
    begun = time.perf_counter()
    with load(order["model"], LoadSettings(**order["load"])) as llm:
        send({"load_seconds": time.perf_counter() - begun})
        # what is compiled or read at first use is not the question's
        answer(llm, "Hello", Sampling(max_tokens=2))
        for request in requests:
            seed = None
            if sampling.seed is not None:
                seed = sampling.seed + request["repetition"]
            try:
                send(answer(llm, request["question"], replace(sampling, seed=seed)))
            except EdgeLLMError as error:
                send(error_message(error))


def answer(llm: LLM, question: str, sampling: Sampling) -> dict[str, Any]:
    """Return the answer and what it cost.

    A model that converses answers in its chat template; another goes on with the text. Raises
    EdgeLLMError.
    """
    prompt: str | list[int] = question
    if llm.tokenizer.chat_template is not None:
        prompt = llm.tokenizer.apply_chat_template([{"role": "user", "content": question}])
    completion = llm.generate(prompt, sampling)
    stats = completion.stats
    return {
        "answer": completion.text.strip(),
        "finish_reason": completion.finish_reason,
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.completion_tokens,
        "first_token_seconds": stats.first_token_seconds,
        "seconds": stats.first_token_seconds + stats.decode_seconds,
        "peak_memory_bytes": stats.peak_memory_bytes,
    }


if __name__ == "__main__":
    run_worker(serve)
