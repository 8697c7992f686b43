"""Completions on the command line: one, shown as it comes, or many side by side; or printed whole as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgellm.console.answer_view import PlainAnswer, SilentAnswer
from edgellm.console.status_line import Activity
from edgellm.console.terminal import note, write, write_json
from edgellm.diagnostics.facts import completion_facts
from edgellm.generation.output import Token
from edgellm.llm import LLM
from edgellm.settings import Sampling


def complete(llm: LLM, prompt: str | Sequence[int], sampling: Sampling, *, json: bool) -> None:
    """Continue a prompt on standard output. Raises EdgeLLMError."""
    activity = Activity(lambda: llm.bytes_read)
    stream = llm.stream(prompt, sampling, on_prefill=activity.prefill)
    tokens = []
    with SilentAnswer(activity) if json else PlainAnswer(activity) as view:
        for token in stream:
            activity.token()
            tokens.append(token)
            view.add(token.text)
    if json:
        write_json(completion_facts(tokens, llm.plan, logprobs=sampling.logprobs))


def complete_all(
    llm: LLM,
    prompts: Mapping[int, str | Sequence[int]],
    sampling: Sampling,
    *,
    at_once: int,
    json: bool,
) -> None:
    """Continue some prompts side by side on standard output: a JSON document a line as they end, or texts in their order.

    Each is told by its number, the key in ``prompts``.

    Raises:
        EdgeLLMError: with the prompts as in ``LLM.stream_batch``; what one prompt cannot have is
            noted and printed, and the others go on.
    """
    activity = Activity(lambda: llm.bytes_read)
    numbers = list(prompts)
    answers: list[list[Token]] = [[] for _ in prompts]
    shown = 0
    with SilentAnswer(activity):
        for place, token in llm.stream_batch(list(prompts.values()), sampling, at_once=at_once):
            activity.token()
            tokens = answers[place]
            tokens.append(token)
            if token.error is not None:
                note(f"prompt {numbers[place]}: {token.error.message}")
            if token.finish_reason is None:
                continue
            if json:
                facts = {"index": numbers[place]} | completion_facts(
                    tokens, llm.plan, logprobs=sampling.logprobs
                )
                write_json(
                    facts | ({"error": token.error.message} if token.error else {}), line=True
                )
                continue
            while (
                shown < len(answers)
                and answers[shown]
                and answers[shown][-1].finish_reason is not None
            ):
                text = "".join(token.text for token in answers[shown])
                write(f"--- {numbers[shown]}\n{text}\n")
                shown += 1
