"""A worker for one loaded model: it scores options, generates answers and reads texts.

The first order says what to load; each one after it has a ``do``, and prompts. What belongs to a
prompt comes with its ``place``, as soon as it is there; a message with ``done`` ends the order and
says what it took (see ``bench.worker.protocol``).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.bench.evaluation.divergence import LogitComparison
from edgellm.bench.evaluation.loaded_model import completions, loaded
from edgellm.bench.evaluation.runs.prompt_tokens import option_pairs, prompt_ids
from edgellm.bench.worker.protocol import Message, Send, error_message, run_worker
from edgellm.device import machine
from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.llm import LLM
from edgellm.scoring.pairs import encode_pairs
from edgellm.scoring.scorer import Score
from edgellm.scoring.windows import windows
from edgellm.settings import Sampling

LATENCY_TOKENS = 16
"""Tokens that are generated where latency is measured."""

LATENCY_SECONDS = 10.0
"""After which no further question is asked alone: a paged model takes seconds for a token."""

LATENCY_PROMPT = 64
"""Tokens of a text's beginning that stand for a prompt, where texts are read."""


def serve(order: Message, requests: Iterator[Message], send: Send) -> None:
    """Load a model as the first order says, then do what each of the others asks for."""
    with loaded(order, send) as llm:
        for request in requests:
            try:
                _follow(llm, request, send)
            except EdgeLLMError as error:
                send(error_message(error))


def _follow(llm: LLM, request: Message, send: Send) -> None:
    begun, read_before = time.perf_counter(), llm.bytes_read
    counts = _WORK[request["do"]](llm, request, send)
    send(
        {
            "done": True,
            "seconds": time.perf_counter() - begun,
            "bytes_read": llm.bytes_read - read_before,
            "peak_memory_bytes": machine.peak_process_memory(),
            **counts,
        }
    )


def score_options(llm: LLM, request: Message, send: Send) -> dict[str, Any]:
    """Send the scores of each prompt's options, a prompt at a time."""
    pairs: list[tuple[list[int], list[int]]] = []
    owners: list[tuple[int, int]] = []
    were_cut: dict[int, bool] = {}
    for place, prompt in enumerate(request["prompts"]):
        with _named(prompt):
            found_pairs = option_pairs(prompt, llm.tokenizer, llm.context)
        for number, pair in enumerate(found_pairs):
            pairs.append((list(pair.context), list(pair.continuation)))
            owners.append((place, number))
            were_cut[place] = pair.was_cut
    found: dict[int, dict[int, Score]] = defaultdict(dict)
    missing = {
        place: len(prompt["continuations"]) for place, prompt in enumerate(request["prompts"])
    }
    tokens = 0
    with llm.stream_scores(pairs) as scores:
        for pair_number, score in scores:
            place, number = owners[pair_number]
            found[place][number] = score
            tokens += len(pairs[pair_number][0]) + len(pairs[pair_number][1])
            if len(found[place]) == missing[place]:
                options = found.pop(place)
                send(
                    {
                        "place": place,
                        "scores": [_plain(options[number]) for number in sorted(options)],
                        "was_cut": were_cut[place],
                    }
                )
        stats = scores.stats
    return {"tokens": tokens, "layer_tokens": stats.layer_tokens, "head_rows": stats.head_rows}


def generate_answers(llm: LLM, request: Message, send: Send) -> dict[str, Any]:
    """Send each prompt's answer, as it ends; beams go one prompt after the other."""
    prompts, samplings, were_cut = [], [], []
    for prompt in request["prompts"]:
        fields = dict(request["sampling"])
        if fields.get("temperature"):
            fields["seed"] = prompt["seed"]
        sampling = Sampling(**fields)
        room = llm.context - (sampling.max_tokens or 0)
        if room < 1:
            raise ConfigError(
                f"answers of {sampling.max_tokens} tokens leave no room for a prompt in a context "
                f"of {llm.context}",
                hint="raise --context, or lower --max-tokens",
            )
        with _named(prompt):
            ids, was_cut = prompt_ids(prompt, llm.tokenizer, room)
        prompts.append(list(ids))
        samplings.append(sampling)
        were_cut.append(was_cut)
    tokens = 0
    for place, completion in completions(llm, prompts, samplings):
        tokens += len(prompts[place]) + len(completion.ids)
        send(
            {
                "place": place,
                "text": completion.text,
                "tokens": len(completion.ids),
                "finish_reason": completion.finish_reason,
                "was_cut": were_cut[place],
            }
        )
    return {"tokens": tokens}


def read_texts(llm: LLM, request: Message, send: Send) -> dict[str, Any]:
    """Send the likelihood of each text, read in windows after the token that begins a text."""
    pairs: list[tuple[list[int], list[int]]] = []
    owners: list[int] = []
    counts: dict[int, int] = defaultdict(int)
    for place, prompt in enumerate(request["prompts"]):
        with _named(prompt):
            ids = _text_ids(llm, prompt)
        for context, continuation in windows(ids, context=llm.context, stride=request["stride"]):
            pairs.append((context, continuation))
            owners.append(place)
            counts[place] += 1
    logprobs: dict[int, list[float]] = defaultdict(list)
    lengths: dict[int, int] = defaultdict(int)
    with llm.stream_scores(pairs) as scores:
        for number, score in scores:
            place = owners[number]
            logprobs[place].append(score.logprob)
            lengths[place] += len(score.ids)
            if len(logprobs[place]) == counts[place]:
                send({"place": place, "logprob": sum(logprobs[place]), "tokens": lengths[place]})
        stats = scores.stats
    return {
        "tokens": sum(lengths.values()),
        "layer_tokens": stats.layer_tokens,
        "head_rows": stats.head_rows,
    }


def write_logits(llm: LLM, request: Message, send: Send) -> dict[str, Any]:
    """Write the logits of the first texts to files, as far as the number of tokens goes."""
    folder, left = Path(request["folder"]), int(request["tokens"])
    for place, prompt in enumerate(request["prompts"]):
        ids = _text_ids(llm, prompt)[: min(llm.context, left)]
        if len(ids) < 2:
            break
        left -= len(ids)
        rows = np.concatenate(list(llm.stream_logits(ids[:-1])))
        np.savez(folder / f"{place}.npz", ids=np.array(ids), logits=rows)
        send({"place": place})
    return {}


def compare_logits(llm: LLM, request: Message, send: Send) -> dict[str, Any]:
    """Send how the logits of texts differ from those in files; other token ids are not compared."""
    for place, prompt in enumerate(request["prompts"]):
        file = Path(request["folder"]) / f"{place}.npz"
        if not file.exists():
            break
        with np.load(file) as kept:
            ids, reference = kept["ids"].tolist(), kept["logits"]
        mine = _text_ids(llm, prompt)[: len(ids)]
        if mine != ids or len(ids) > llm.context:
            send({"place": place, "other_tokens": True})
            continue
        sums = LogitComparison()
        begin = 0
        for rows in llm.stream_logits(ids[:-1]):
            end = begin + len(rows)
            sums.add(reference[begin:end], rows, ids[begin:end])
            begin = end
        send(
            {
                "place": place,
                "kl_sum": max(0.0, sums.kl_sum),
                "kl_tokens": sums.tokens,
                "top1_agreed": sums.agreed,
            }
        )
    return {}


def measure_latency(llm: LLM, request: Message, send: Send) -> dict[str, Any]:
    """Measure questions that are asked alone: until the first token, and from one to the next."""
    firsts: list[float] = []
    steps: list[float] = []
    sampling = Sampling(max_tokens=LATENCY_TOKENS)
    begun = time.perf_counter()
    for prompt in request["prompts"]:
        if firsts and time.perf_counter() - begun > LATENCY_SECONDS:
            break
        if prompt["messages"] or prompt["context"]:
            room = max(1, llm.context - LATENCY_TOKENS)
            ids, _ = prompt_ids(prompt, llm.tokenizer, room)
        else:
            ids = tuple(_text_ids(llm, prompt)[:LATENCY_PROMPT])
        stats = llm.generate(list(ids), sampling).stats
        firsts.append(stats.first_token_seconds)
        if stats.completion_tokens > 1:
            steps.append(stats.decode_seconds / (stats.completion_tokens - 1))
    return {"first_token_seconds": firsts, "step_seconds": steps}


@contextmanager
def _named(prompt: Mapping[str, Any]) -> Iterator[None]:
    """Have an error of the ``with`` block say which question it is about."""
    try:
        yield
    except EdgeLLMError as error:
        raise type(error)(f"{prompt['name']}: {error.message}", hint=error.hint) from error


def _text_ids(llm: LLM, prompt: Mapping[str, Any]) -> list[int]:
    """Return a text's ids after the one that begins a text."""
    [pair] = encode_pairs([("", prompt["continuations"][0])], llm.tokenizer)
    return list(pair.tokens)


def _plain(score: Score) -> dict[str, Any]:
    return {"logprob": score.logprob, "is_greedy": score.is_greedy, "tokens": len(score.ids)}


_WORK: Mapping[str, Callable[[LLM, Message, Send], dict[str, Any]]] = {
    "options": score_options,
    "generated": generate_answers,
    "read": read_texts,
    "write_logits": write_logits,
    "compare_logits": compare_logits,
    "latency": measure_latency,
}

if __name__ == "__main__":
    run_worker(serve)
