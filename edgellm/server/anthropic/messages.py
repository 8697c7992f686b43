"""``/v1/messages``: replies in a conversation, in Anthropic's form."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgellm.server.answering.answers import count_tokens, reply
from edgellm.server.answering.forms import read_form
from edgellm.server.answering.sampling_fields import read_sampling
from edgellm.server.answering.state import model_of, state_of
from edgellm.server.anthropic.conversation import read_conversation, shows_thinking
from edgellm.server.anthropic.field_tables import COUNT_TOKENS, MESSAGES
from edgellm.server.anthropic.message_object import PING, MessageObject
from edgellm.server.http.event_stream import EventStream, event, while_connected
from edgellm.server.http.fields import Fields
from edgellm.server.http.json_body import read_json


async def messages(request: Request) -> Response:
    """Answer a conversation."""
    fields = Fields(await read_json(request))
    state = state_of(request)
    MESSAGES.check_request(fields)
    is_streamed = fields.flag("stream")
    sampling = read_sampling(
        fields, state.settings.sampling, limits=["max_tokens"], stop="stop_sequences"
    )
    max_tokens = sampling.max_tokens
    if max_tokens is None:
        raise fields.wrong("max_tokens", "a whole number from 1 on")
    config = fields.object("output_config")
    if config is not None:
        sampling = replace(sampling, grammar=await read_form(config.object("format")))
    conversation = read_conversation(fields)
    is_thinking_shown = shows_thinking(fields)
    model = await model_of(request, fields)
    opening = reply(state, model, conversation, [sampling])
    (answer,) = await while_connected(request, opening)
    message = MessageObject(
        model.name, answer, max_tokens=max_tokens, shows_thinking=is_thinking_shown
    )
    if is_streamed:
        return EventStream(
            message.events(), lambda error: event(error.anthropic(), "error"), while_silent=PING
        )
    return JSONResponse(await while_connected(request, message.whole()))


async def count_message_tokens(request: Request) -> Response:
    """Answer with the tokens of a conversation."""
    fields = Fields(await read_json(request))
    model = await model_of(request, fields)
    COUNT_TOKENS.check_request(fields)
    counting = count_tokens(model, read_conversation(fields))
    return JSONResponse({"input_tokens": await while_connected(request, counting)})
