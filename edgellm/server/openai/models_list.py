"""``/v1/models``: the models of the server."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgellm.server.answering.models import ServedModel
from edgellm.server.answering.state import state_of


async def list_models(request: Request) -> Response:
    """Answer with all models."""
    models = [_entry(model) for model in state_of(request).models]
    return JSONResponse({"object": "list", "data": models})


async def show_model(request: Request) -> Response:
    """Answer with one model."""
    return JSONResponse(_entry(state_of(request).models.find(request.path_params["name"])))


def _entry(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "edgellm",
        "context_length": model.llm.llm.context,
    }
