"""``/v1/models``: the models of the server, and what they are doing."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgellm.server.answering.models import ModelEntry
from edgellm.server.answering.state import state_of


async def list_models(request: Request) -> Response:
    """Answer with all models."""
    models = [_entry(model) for model in state_of(request).models]
    return JSONResponse({"object": "list", "data": models})


async def show_model(request: Request) -> Response:
    """Answer with one model."""
    return JSONResponse(_entry(state_of(request).models.find(request.path_params["name"])))


def _entry(model: ModelEntry) -> dict[str, Any]:
    """Return OpenAI's object of a model, and its state."""
    entry: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "edgellm",
        "state": model.state,
    }
    if model.served is not None:
        llm = model.served.llm
        entry["context_length"] = llm.llm.context
        entry["running"] = llm.running
        entry["waiting"] = llm.waiting
        entry["memory_bytes"] = llm.llm.plan.total_bytes
    return entry
