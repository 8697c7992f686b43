"""``/v1/embeddings``: texts as vectors, the mean of the model's last hidden states."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgellm.generation.prompt import token_ids
from edgellm.server.answering.answers import time_is_over
from edgellm.server.answering.state import model_of, state_of
from edgellm.server.http.event_stream import while_connected
from edgellm.server.http.fields import Fields
from edgellm.server.http.json_body import read_json
from edgellm.server.openai.field_tables import EMBEDDINGS
from edgellm.server.openai.prompts import read_prompts

MAX_INPUTS = 2048
BATCH_TOKENS = 4096


async def embeddings(request: Request) -> Response:
    """Answer with a vector of length 1 for each input."""
    fields = Fields(await read_json(request))
    EMBEDDINGS.check_request(fields)
    inputs = read_prompts(fields, "input", at_most=MAX_INPUTS)
    form = fields.choice("encoding_format", ("float", "base64"), "float")
    model = await model_of(request, fields)
    tokenizer = model.llm.tokenizer

    async def compute() -> tuple[int, npt.NDArray[np.float32]]:
        encoding = asyncio.to_thread(lambda: [token_ids(one, tokenizer) for one in inputs])
        try:
            async with asyncio.timeout(state_of(request).settings.timeout):
                encoded = await encoding
                rows = [await model.llm.embed(some) for some in _batches(encoded)]
                return sum(map(len, encoded)), np.concatenate(rows)
        except TimeoutError:
            raise time_is_over() from None

    count, vectors = await while_connected(request, compute())
    data = [
        {"object": "embedding", "index": place, "embedding": _written(vector, form)}
        for place, vector in enumerate(vectors)
    ]
    used = {"prompt_tokens": count, "total_tokens": count}
    return JSONResponse({"object": "list", "data": data, "model": model.name, "usage": used})


def _batches(inputs: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """Yield inputs in batches of some tokens, between which answers that wait go on."""
    batch: list[list[int]] = []
    for one in inputs:
        if batch and sum(map(len, batch)) + len(one) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(one)
    yield batch


def _written(vector: npt.NDArray[np.float32], form: str) -> Any:
    """Return a vector as numbers, or as base64 of 32-bit floats, least significant byte first."""
    if form == "base64":
        return b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return vector.tolist()
