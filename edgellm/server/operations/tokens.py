"""``/tokenize`` and ``/detokenize``, in the forms of vLLM and of llama-server."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgellm.chat.messages import checked_messages
from edgellm.generation.output import token_text
from edgellm.server.answering.models import ServedModel
from edgellm.server.answering.state import model_of, state_of
from edgellm.server.http.api_error import refused
from edgellm.server.http.fields import Fields
from edgellm.server.http.json_body import read_json
from edgellm.setting_values import is_int

MAX_TOKENS = 4_000_000
MAX_MESSAGES = 10_000


async def tokenize(request: Request) -> Response:
    """Answer with the tokens of a text (``prompt`` or ``content``), or of ``messages``."""
    fields = Fields(await read_json(request))
    model = await _model(request, fields)
    if fields.has("content"):
        return JSONResponse(await asyncio.to_thread(_as_llama_server, fields, model))
    return JSONResponse(await asyncio.to_thread(_as_vllm, fields, model))


async def detokenize(request: Request) -> Response:
    """Answer with the text of ``tokens``."""
    fields = Fields(await read_json(request))
    tokens = fields.items("tokens", at_most=MAX_TOKENS)
    if not fields.has("tokens") or not all(map(is_int, tokens)):
        raise fields.wrong("tokens", "a list of token ids")
    model = await _model(request, fields)
    tokenizer = model.llm.tokenizer
    if tokens and not 0 <= min(tokens) <= max(tokens) < tokenizer.vocab_size:
        raise refused("tokens", f"tokens must be ids from 0 to {tokenizer.vocab_size - 1}")
    text = await asyncio.to_thread(tokenizer.decode, tokens, skip_special_tokens=False)
    return JSONResponse({"prompt": text, "content": text})


async def _model(request: Request, fields: Fields) -> ServedModel:
    """Return the model that is asked for, which may be left out where there is only one."""
    names = [model.name for model in state_of(request).models]
    if not fields.has("model") and len(names) == 1:
        fields = Fields({"model": names[0]})
    return await model_of(request, fields)


def _as_vllm(fields: Fields, model: ServedModel) -> dict[str, Any]:
    tokenizer = model.llm.tokenizer
    if fields.has("messages"):
        messages = [one.values() for one in fields.objects("messages", at_most=MAX_MESSAGES)]
        tokens = tokenizer.apply_chat_template(
            checked_messages(messages),
            add_generation_prompt=fields.flag("add_generation_prompt", True),
        )
    elif fields.has("prompt"):
        tokens = tokenizer.encode(
            fields.text("prompt"), add_special_tokens=fields.flag("add_special_tokens", True)
        )
    else:
        raise refused("prompt", "give prompt or content, a text, or messages")
    texts = None
    if fields.flag("return_token_strs"):
        texts = [tokenizer.id_to_token(token) for token in tokens]
    return {
        "count": len(tokens),
        "max_model_len": model.llm.llm.context,
        "tokens": tokens,
        "token_strs": texts,
    }


def _as_llama_server(fields: Fields, model: ServedModel) -> dict[str, Any]:
    fields.allow("parse_special", True, instead="special tokens in a text always count as such")
    tokenizer = model.llm.tokenizer
    tokens = tokenizer.encode(fields.text("content"), add_special_tokens=fields.flag("add_special"))
    if not fields.flag("with_pieces"):
        return {"tokens": tokens}
    return {"tokens": [{"id": one, "piece": token_text(one, tokenizer)} for one in tokens]}
