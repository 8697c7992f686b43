"""``/v1/chat/completions``: replies in a conversation."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgellm.generation.output import Token
from edgellm.server.answering.answers import (
    Answer,
    own_end,
    read_all,
    reply,
    tokens_of,
)
from edgellm.server.answering.forms import read_form, read_grammar
from edgellm.server.answering.models import ServedModel
from edgellm.server.answering.sampling_fields import choices, read_sampling, with_seeds
from edgellm.server.answering.state import model_of, state_of
from edgellm.server.http.api_error import refused
from edgellm.server.http.event_stream import DONE, EventStream, TextEvents, event, while_connected
from edgellm.server.http.fields import Fields
from edgellm.server.http.json_body import read_json
from edgellm.server.openai.chat_messages import read_conversation
from edgellm.server.openai.field_tables import CHAT
from edgellm.server.openai.logprobs import chat_logprobs
from edgellm.server.openai.usage import usage, with_usage

MAX_TOP_LOGPROBS = 20


async def chat_completions(request: Request) -> Response:
    """Answer a conversation."""
    fields = Fields(await read_json(request))
    state = state_of(request)
    CHAT.check_request(fields)
    is_streamed = fields.flag("stream")
    tells_usage = with_usage(fields)
    sampling = replace(read_sampling(fields, state.settings.sampling), **_logprobs(fields))
    grammar = await read_grammar(fields)
    form = await read_form(fields.object("response_format"), nested="json_schema")
    sampling = replace(sampling, grammar=form or grammar)
    samplings = with_seeds(sampling, choices(fields))
    conversation = read_conversation(fields)
    if grammar is not None and conversation.tool_choice not in ("auto", "none"):
        raise refused("grammar", "grammar and a call that is required exclude one another")
    model = await model_of(request, fields)
    opening = reply(state, model, conversation, samplings)
    answers = await while_connected(request, opening)
    completion = ChatCompletion(
        model, answers, with_usage=tells_usage, with_logprobs=sampling.logprobs
    )
    if is_streamed:
        return EventStream(completion.events(), lambda error: event(error.openai()))
    return JSONResponse(await while_connected(request, completion.whole()))


class ChatCompletion:
    """The object of a chat completion, whole or in chunks.

    Args:
        model: that answers.
        answers: its choices.
        with_usage: whether a stream is to end with its usage.
        with_logprobs: whether tokens come with their log-probabilities.
    """

    def __init__(
        self,
        model: ServedModel,
        answers: Sequence[Answer],
        *,
        with_usage: bool,
        with_logprobs: bool,
    ) -> None:
        self._model = model
        self._answers = answers
        self._with_logprobs = with_logprobs
        self._with_usage = with_usage
        self._thinking_tokens = 0
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model.name,
        }

    async def whole(self) -> dict[str, Any]:
        """Return it as one object."""
        tokens = await read_all(self._answers)
        return {
            **self._head,
            "choices": [
                self._choice(place, answer, some)
                for place, (answer, some) in enumerate(zip(self._answers, tokens, strict=True))
            ],
            "usage": self._usage(),
        }

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield its chunks as events."""
        self._head["object"] = "chat.completion.chunk"
        texts = []
        for place in range(len(self._answers)):
            yield self._chunk(place, {"role": "assistant", "content": ""})
            texts.append(TextEvents(partial(self._text_chunk, place)))
        async with aclosing(tokens_of(self._answers)) as coming:
            async for place, token in coming:
                if token.thinking or token.finish_reason is not None or self._with_logprobs:
                    for chunk in self._chunks_of(place, token):
                        yield chunk
                elif token.text:
                    yield texts[place](token.text)
        if self._with_usage:
            yield event({**self._head, "choices": [], "usage": self._usage()})
        yield DONE

    def _chunks_of(self, place: int, token: Token) -> list[bytes]:
        delta: dict[str, Any] = {}
        self._thinking_tokens += bool(token.thinking)
        if token.thinking:
            delta["reasoning_content"] = token.thinking
        if token.text:
            delta["content"] = token.text
        logprobs = self._logprobs([token])
        chunks = []
        if delta or (logprobs and token.id is not None):
            chunks.append(self._chunk(place, delta or {"content": ""}, logprobs=logprobs))
        if token.finish_reason is not None:
            calls = self._answers[place].tool_calls
            if calls:
                indexed = [{"index": index, **call} for index, call in enumerate(calls)]
                chunks.append(self._chunk(place, {"tool_calls": indexed}))
            reason = finish_reason(token, has_calls=bool(calls))
            chunks.append(self._chunk(place, {}, reason))
        return chunks

    def _text_chunk(self, place: int, text: str) -> bytes:
        return self._chunk(place, {"content": text})

    def _chunk(
        self,
        place: int,
        delta: Mapping[str, Any],
        reason: str | None = None,
        *,
        logprobs: Mapping[str, Any] | None = None,
    ) -> bytes:
        choice = {"index": place, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        chunk: dict[str, Any] = {**self._head, "choices": [choice]}
        if self._with_usage:
            chunk["usage"] = None
        return event(chunk)

    def _choice(self, place: int, answer: Answer, tokens: Sequence[Token]) -> dict[str, Any]:
        calls = answer.tool_calls
        self._thinking_tokens += sum(bool(token.thinking) for token in tokens)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(token.text for token in tokens),
            "refusal": None,
        }
        thinking = "".join(token.thinking for token in tokens)
        if thinking:
            message["reasoning_content"] = thinking
        if calls:
            message["content"] = message["content"].rstrip() or None
            message["tool_calls"] = calls
        return {
            "index": place,
            "message": message,
            "logprobs": self._logprobs(tokens),
            "finish_reason": finish_reason(tokens[-1], has_calls=bool(calls)),
        }

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        return chat_logprobs(tokens, self._model.llm.tokenizer)

    def _usage(self) -> dict[str, Any]:
        value = usage([[answer.stats for answer in self._answers]])
        value["completion_tokens_details"] = {"reasoning_tokens": self._thinking_tokens}
        return value


def finish_reason(last: Token, *, has_calls: bool) -> str:
    """Return why an answer ended, in OpenAI's words; errors are those of ``own_end``."""
    reason = own_end(last)
    if has_calls:
        return "tool_calls"
    return reason


def _logprobs(fields: Fields) -> dict[str, Any]:
    top = fields.whole("top_logprobs", 0, MAX_TOP_LOGPROBS) or 0
    wanted = fields.flag("logprobs")
    if top and not wanted:
        raise refused("top_logprobs", "top_logprobs needs logprobs to be true")
    return {"logprobs": wanted, "top_logprobs": top}
