"""The application: routes, and how errors of any handler are answered."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgellm.errors import EdgeLLMError
from edgellm.server.answering.models import Models
from edgellm.server.answering.settings import ServerSettings
from edgellm.server.answering.state import HoldsModels, ServerState
from edgellm.server.anthropic.messages import count_message_tokens, messages
from edgellm.server.http.api_error import LOG, ApiError, api_error, error_object, log_fault
from edgellm.server.http.event_stream import ClientLeft
from edgellm.server.http.guard import Guard
from edgellm.server.openai.chat_completions import chat_completions
from edgellm.server.openai.completions import completions
from edgellm.server.openai.embeddings import embeddings
from edgellm.server.openai.models_list import list_models, show_model
from edgellm.server.openai.responses.handler import responses
from edgellm.server.operations.counting import CountsRequests
from edgellm.server.operations.health import health, ready
from edgellm.server.operations.metrics_page import metrics_page
from edgellm.server.operations.tokens import detokenize, tokenize
from edgellm.server.page import show_page

ROUTES = (
    Route("/", show_page),
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/messages", messages, methods=["POST"]),
    Route("/v1/messages/count_tokens", count_message_tokens, methods=["POST"]),
    Route("/v1/models", list_models),
    Route("/v1/models/{name:path}", show_model),
    Route("/v1/responses", responses, methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
    Route("/health", health),
    Route("/ready", ready),
    Route("/metrics", metrics_page),
)

_PATHS = frozenset(route.path for route in ROUTES)


def make_app(models: Models, settings: ServerSettings) -> Starlette:
    """Return the application that serves some models, which its caller closes."""
    state = ServerState(models, settings)
    app = Starlette(
        routes=list(ROUTES),
        middleware=[
            Middleware(CountsRequests, metrics=state.metrics, paths=_PATHS),
            Middleware(Guard, keys=settings.api_keys, origins=settings.cors_origins),
            Middleware(HoldsModels, models=models),
        ],
        exception_handlers={
            ApiError: _answer_error,
            EdgeLLMError: _answer_error,
            HTTPException: _answer_http_error,
            ClientLeft: _answer_nobody,
            ClientDisconnect: _answer_nobody,
            Exception: _answer_failure,
        },
    )
    app.state.server = state
    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    told = api_error(error)
    if told.status >= 500 and isinstance(error, ApiError):  # else it is there already
        log_fault(told.message)
    value = error_object(told, request.url.path)
    return JSONResponse(value, told.status, told.headers)


async def _answer_failure(request: Request, error: Exception) -> Response:
    LOG.error("a request has failed", exc_info=error)
    return await _answer_error(request, error)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    message = error.detail
    if error.status_code == 404:
        message = f"there is nothing at {path}; the API is below /v1"
    elif error.status_code == 405:
        message = f"{path} does not take {request.method}"
    response = await _answer_error(request, ApiError(error.status_code, message))
    response.headers.update(error.headers or {})  # which methods a path does take
    return response


async def _answer_nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # as nginx notes it
