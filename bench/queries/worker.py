"""A process of its own for one model and number of threads: loads it, and answers the questions that standard input asks.

It speaks lines of JSON: what it has found on standard output, what it is to do on standard input.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import Any

from edgellm.errors import EdgeLLMError
from edgellm.llm import LLM
from edgellm.open_llm import load
from edgellm.settings import LoadSettings, Sampling


def main(model: str, settings: str) -> None:
    """Load a model, say what it is, and answer until standard input ends."""
    found = json.loads(settings)
    try:
        begun = time.perf_counter()
        with load(model, LoadSettings(**found["load"])) as llm:
            _say(
                {
                    "load_seconds": time.perf_counter() - begun,
                    "chat": llm.tokenizer.chat_template is not None,
                }
            )
            # what is compiled or read at first use is not the question's
            answer(llm, "Hello", Sampling(max_tokens=2))
            sampling = Sampling(**found["sampling"])
            for line in sys.stdin:
                order = json.loads(line)
                seed = None if sampling.seed is None else sampling.seed + order["repetition"]
                _say(answer(llm, order["question"], replace(sampling, seed=seed)))
    except EdgeLLMError as error:
        _say({"error": error.message})


def answer(llm: LLM, question: str, sampling: Sampling) -> dict[str, Any]:
    """An answer as a turn of a conversation, or as a text that goes on where a model does not converse; and what it cost."""
    prompt: str | list[int] = question
    if llm.tokenizer.chat_template is not None:
        prompt = llm.tokenizer.apply_chat_template([{"role": "user", "content": question}])
    try:
        found = llm.generate(prompt, sampling)
    except EdgeLLMError as error:
        return {"error": error.message}
    return {
        "answer": found.text.strip(),
        "finish_reason": found.finish_reason,
        "prompt_tokens": found.stats.prompt_tokens,
        "completion_tokens": found.stats.completion_tokens,
        "first_token_seconds": found.stats.first_token_seconds,
        "seconds": found.stats.first_token_seconds + found.stats.decode_seconds,
        "peak_memory_bytes": found.stats.peak_memory_bytes,
    }


def _say(found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
