"""``/health`` and ``/ready``: for what starts, watches and balances servers."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edgellm.server.answering.state import state_of


async def health(_: Request) -> Response:
    """Answer that the server runs."""
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    """Answer whether requests would be computed now: not while the only models are being loaded."""
    states = {model.state for model in state_of(request).models}
    if states == {"loading"}:
        return JSONResponse({"status": "loading"}, 503, {"Retry-After": "1"})
    return JSONResponse({"status": "ready"})
