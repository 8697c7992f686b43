"""``/v1/responses``: replies to items."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgellm.server.answering.answers import reply
from edgellm.server.answering.forms import read_form
from edgellm.server.answering.sampling_fields import read_sampling
from edgellm.server.answering.state import model_of, state_of
from edgellm.server.http.api_error import refused
from edgellm.server.http.event_stream import EventStream, while_connected
from edgellm.server.http.fields import Fields
from edgellm.server.http.json_body import read_json
from edgellm.server.openai.field_tables import RESPONSES, TEXT
from edgellm.server.openai.responses.input_items import read_conversation
from edgellm.server.openai.responses.response_object import ResponseObject
from edgellm.settings import Sampling

MAX_TOP_LOGPROBS = 20
MAX_INCLUDED = 100
LOGPROBS = "message.output_text.logprobs"


async def responses(request: Request) -> Response:
    """Answer with a response."""
    fields = Fields(await read_json(request))
    state = state_of(request)
    RESPONSES.check_request(fields)
    is_streamed = fields.flag("stream")
    fields.object("metadata")
    sampling = read_sampling(fields, state.settings.sampling, limits=["max_output_tokens"])
    sampling = replace(sampling, **_logprobs(fields))
    text = fields.object("text")
    if text is not None:
        TEXT.check(text)
        sampling = replace(sampling, grammar=await read_form(text.object("format")))
    conversation = read_conversation(fields)
    model = await model_of(request, fields)
    opening = reply(state, model, conversation, [sampling])
    (answer,) = await while_connected(request, opening)
    response = ResponseObject(
        model, answer, _settings(fields, sampling), with_logprobs=sampling.logprobs
    )
    if is_streamed:
        return EventStream(response.events(), response.error_event)
    return JSONResponse(await while_connected(request, response.whole()))


def _logprobs(fields: Fields) -> dict[str, Any]:
    top = fields.whole("top_logprobs", 0, MAX_TOP_LOGPROBS) or 0
    wanted = LOGPROBS in fields.items("include", at_most=MAX_INCLUDED)
    if top and not wanted:
        raise refused("top_logprobs", f"top_logprobs needs {LOGPROBS!r} in include")
    return {"logprobs": wanted, "top_logprobs": top}


def _settings(fields: Fields, sampling: Sampling) -> dict[str, Any]:
    """Return the fields of a request that its response has, too."""
    return {
        "background": False,
        "instructions": fields.any("instructions"),
        "max_output_tokens": fields.any("max_output_tokens"),
        "metadata": fields.any("metadata", {}),
        "parallel_tool_calls": fields.any("parallel_tool_calls", True),
        "previous_response_id": None,
        "reasoning": fields.any("reasoning", {"effort": None, "summary": None}),
        "store": False,
        "temperature": sampling.temperature,
        "text": fields.any("text", {"format": {"type": "text"}}),
        "tool_choice": fields.any("tool_choice", "auto"),
        "tools": fields.any("tools", []),
        "top_logprobs": sampling.top_logprobs,
        "top_p": sampling.top_p,
        "truncation": "disabled",
        "user": fields.any("user"),
    }
