"""Print completions: one as it comes, or many side by side as each ends; or whole, as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from edgellm.console.completion_view import (
    CompletionView,
    PlainView,
    SilentView,
    show_cut_off,
    show_speed,
)
from edgellm.console.status_line import Activity
from edgellm.console.streams import is_terminal
from edgellm.console.terminal import note, write, write_json
from edgellm.diagnostics.facts import completion_facts
from edgellm.generation.output import Token
from edgellm.llm import LLM
from edgellm.settings import Sampling


def print_completion(
    llm: LLM, prompt: str | Sequence[int], sampling: Sampling, *, json: bool
) -> None:
    """Continue a prompt on standard output; on a terminal, say its speed. Raises EdgeLLMError."""
    activity = Activity(lambda: llm.bytes_read)
    view: CompletionView = PlainView(activity)
    if json:
        view = SilentView(activity)
    # checks the prompt: an error comes before anything is shown
    stream = llm.stream(prompt, sampling, on_prefill=activity.prefill)
    tokens = []
    with view:
        for token in stream:
            activity.token()
            tokens.append(token)
            view.add(token.text)
    if json:
        write_json(completion_facts(tokens, llm.plan, logprobs=sampling.logprobs))
        return
    last = tokens[-1]
    if is_terminal(sys.stdout) and last.stats is not None:
        if last.finish_reason == "length":
            show_cut_off(last.stats, max_tokens=sampling.max_tokens, context=llm.context)
        show_speed(last.stats)


def print_completions(
    llm: LLM,
    prompts: Mapping[int, str | Sequence[int]],
    sampling: Sampling,
    *,
    at_once: int,
    json: bool,
) -> None:
    """Continue prompts side by side, each named by its number, the key in ``prompts``.

    Texts are printed in the order of the prompts; as JSON, a document a line as each ends.

    Raises:
        EdgeLLMError: as ``LLM.stream_batch``; the error of a single prompt is noted and printed,
            and the others go on.
    """
    activity = Activity(lambda: llm.bytes_read)
    numbers = list(prompts)
    completions: dict[int, list[Token]] = {number: [] for number in numbers}
    waiting = list(numbers)
    with SilentView(activity):
        for index, token in llm.stream_batch(list(prompts.values()), sampling, at_once=at_once):
            activity.token()
            number = numbers[index]
            tokens = completions[number]
            tokens.append(token)
            if token.error is not None:
                note(f"prompt {number}: {token.error.message}")
            if token.finish_reason is None:
                continue
            if json:
                facts = completion_facts(tokens, llm.plan, logprobs=sampling.logprobs)
                _write_document(number, facts, token)
            while not json and waiting and _is_complete(completions[waiting[0]]):
                first = waiting.pop(0)
                text = "".join(token.text for token in completions[first])
                write(f"--- {first}\n{text}\n")


def _is_complete(tokens: Sequence[Token]) -> bool:
    return bool(tokens) and tokens[-1].finish_reason is not None


def _write_document(number: int, facts: Mapping[str, object], last: Token) -> None:
    document = {"index": number, **facts}
    if last.error is not None:
        document["error"] = last.error.message
    write_json(document, line=True)
