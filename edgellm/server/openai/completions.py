"""``/v1/completions``: continuations of texts."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgellm.generation.output import Token
from edgellm.generation.prompt import Prompt
from edgellm.server.answering.answers import Answer, complete, own_end, read_all, tokens_of
from edgellm.server.answering.forms import read_grammar
from edgellm.server.answering.models import ServedModel
from edgellm.server.answering.sampling_fields import choices, read_sampling, with_seeds
from edgellm.server.answering.state import model_of, state_of
from edgellm.server.http.api_error import refused
from edgellm.server.http.event_stream import DONE, EventStream, event, while_connected
from edgellm.server.http.fields import Fields
from edgellm.server.http.json_body import read_json
from edgellm.server.openai.field_tables import COMPLETIONS
from edgellm.server.openai.logprobs import TextLogprobs
from edgellm.server.openai.prompts import read_prompts
from edgellm.server.openai.usage import usage, with_usage

MAX_ANSWERS = 256
"""Prompts, and answers to all of them."""

MAX_TOP_LOGPROBS = 5


async def completions(request: Request) -> Response:
    """Answer with continuations."""
    fields = Fields(await read_json(request))
    state = state_of(request)
    COMPLETIONS.check_request(fields)
    is_streamed = fields.flag("stream")
    fields.flag("echo")
    tells_usage = with_usage(fields)
    prompts = read_prompts(fields, "prompt", at_most=MAX_ANSWERS)
    sampling = replace(read_sampling(fields, state.settings.sampling), **_logprobs(fields))
    sampling = replace(sampling, grammar=await read_grammar(fields))
    samplings = with_seeds(sampling, choices(fields))
    if len(prompts) * len(samplings) > MAX_ANSWERS:
        raise refused("n", f"n asks for more than {MAX_ANSWERS} answers to all prompts")
    model = await model_of(request, fields)
    opening = complete(state, model, prompts, samplings)
    answers = await while_connected(request, opening)
    completion = TextCompletion(model, answers, prompts, fields, with_usage=tells_usage)
    if is_streamed:
        return EventStream(completion.events(), lambda error: event(error.openai()))
    return JSONResponse(await while_connected(request, completion.whole()))


class TextCompletion:
    """The object of a completion, whole or in chunks.

    Args:
        model: that completes.
        answers: those of the first prompt, then those of the next.
        prompts: what they continue.
        fields: the request.
        with_usage: whether a stream is to end with its usage.
    """

    def __init__(
        self,
        model: ServedModel,
        answers: Sequence[Answer],
        prompts: Sequence[Prompt],
        fields: Fields,
        *,
        with_usage: bool,
    ) -> None:
        self._answers = answers
        self._per_prompt = len(answers) // len(prompts)
        self._with_usage = with_usage
        self._echoes: list[str] = [""] * len(answers)
        if fields.flag("echo"):
            shown = [_shown(prompt, model) for prompt in prompts]
            self._echoes = [shown[place // self._per_prompt] for place in range(len(answers))]
        self._logprobs: list[TextLogprobs] = []
        if fields.has("logprobs"):
            self._logprobs = [TextLogprobs(model.llm.tokenizer, echo) for echo in self._echoes]
        self._head: dict[str, Any] = {
            "id": f"cmpl-{uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.name,
        }

    async def whole(self) -> dict[str, Any]:
        """Return it as one object."""
        tokens = await read_all(self._answers)
        found = [self._choice(place, some) for place, some in enumerate(tokens)]
        return {**self._head, "choices": found, "usage": self._usage()}

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield its chunks as events."""
        async with aclosing(tokens_of(self._answers)) as coming:
            async for place, token in coming:
                choice = self._choice(place, [token])
                if choice["text"] or choice["logprobs"] or choice["finish_reason"]:
                    chunk: dict[str, Any] = {**self._head, "choices": [choice]}
                    if self._with_usage:
                        chunk["usage"] = None
                    yield event(chunk)
        if self._with_usage:
            yield event({**self._head, "choices": [], "usage": self._usage()})
        yield DONE

    def _choice(self, place: int, tokens: Sequence[Token]) -> dict[str, Any]:
        """Return what some tokens add to a choice; the prompt comes with the first of them."""
        echo, self._echoes[place] = self._echoes[place], ""
        logprobs = None
        if self._logprobs:
            logprobs = self._logprobs[place].of(tokens)
        reason = None
        if tokens[-1].finish_reason is not None:
            reason = own_end(tokens[-1])
        return {
            "index": place,
            "text": echo + "".join(token.text for token in tokens),
            "logprobs": logprobs,
            "finish_reason": reason,
        }

    def _usage(self) -> dict[str, Any]:
        by_prompt = [
            self._answers[begin : begin + self._per_prompt]
            for begin in range(0, len(self._answers), self._per_prompt)
        ]
        return usage([[answer.stats for answer in some] for some in by_prompt])


def _shown(prompt: Prompt, model: ServedModel) -> str:
    if isinstance(prompt, str):
        return prompt
    return model.llm.tokenizer.decode(prompt)


def _logprobs(fields: Fields) -> dict[str, Any]:
    top = fields.whole("logprobs", 0, MAX_TOP_LOGPROBS)
    if top is None:
        return {}
    asked: dict[str, Any] = {"logprobs": True, "top_logprobs": top}
    if fields.flag("echo"):
        asked["prompt_logprobs"] = top
    return asked
