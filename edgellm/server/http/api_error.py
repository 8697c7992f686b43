"""Errors as clients of the APIs get them: a status, and an object that names the field."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

from edgellm.errors import (
    ClosedError,
    ConfigError,
    ContextError,
    EdgeLLMError,
    MachineError,
    MemoryBudgetError,
    ModelNotFoundError,
    QueueFullError,
    TemplateError,
    UnsupportedModelError,
)
from edgellm.repeats import Repeats

LOG = logging.getLogger("edgellm.server")

_REPEATS = Repeats()
"""A fault that all requests meet is one line a minute."""

RETRY_AFTER = 1
"""Seconds after which a client may try again; clients obey it up to two minutes."""

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}

_FIELD = re.compile(r"tool_choice|tools\[\d+\][\w.]*")
"""Fields that errors of the runtime begin with."""


@dataclass(eq=False)
class ApiError(Exception):
    """A request that is refused, or an answer that has failed.

    Attributes:
        status: of HTTP.
        message: states the fact, and the next step.
        param: the field that it is about; None for the request as a whole.
        code: for programs, such as ``context_length_exceeded``.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None

    @property
    def type(self) -> str:
        """The kind of error, in the words of both APIs."""
        return _TYPES.get(self.status, "api_error")

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with it: how long to wait, where that is worth a try."""
        if self.status in {429, 503}:
            return {"Retry-After": str(RETRY_AFTER)}
        if self.status in {408, 413}:  # the rest of the body is not read
            return {"Connection": "close"}
        if self.status == 504:
            return {"x-should-retry": "false"}  # OpenAI's and Anthropic's clients heed it
        return {}

    def openai(self) -> dict[str, Any]:
        """Return the object that OpenAI's clients read."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def anthropic(self) -> dict[str, Any]:
        """Return the object that Anthropic's clients read."""
        return {"type": "error", "error": {"type": self.type, "message": self.message}}


def error_object(error: ApiError, path: str) -> dict[str, Any]:
    """Return the object of an error, as the clients of a path read it."""
    if path.startswith("/v1/messages"):
        return error.anthropic()
    return error.openai()


def refused(param: str | None, message: str, code: str | None = None) -> ApiError:
    """Return the error of a field: what is wrong with it."""
    return ApiError(400, message, param, code)


def with_hint(error: EdgeLLMError) -> str:
    """Return the message of an error, and its next step."""
    if error.hint:
        return f"{error.message}; {error.hint}"
    return error.message


def log_fault(what: str) -> None:
    """Write a fault of the server's to its log, where that was not done lately."""
    _REPEATS.say(what, LOG.error)


def _unavailable(error: EdgeLLMError, message: str) -> ApiError:
    """Return the error of a request that may succeed at another time."""
    if isinstance(error, QueueFullError):
        return ApiError(429, "the server is busy; try again in a moment", code="queue_full")
    if isinstance(error, ClosedError):
        return ApiError(503, "the server is shutting down", code="shutting_down")
    log_fault(f"a request has failed: {message}")  # it names the machine
    return ApiError(503, "a machine that computes the model is missing", code="machine_missing")


def api_error(error: Exception) -> ApiError:
    """Return an error of the runtime as a client is to get it."""
    if isinstance(error, ApiError):
        return error
    if not isinstance(error, EdgeLLMError):
        return ApiError(500, "the server has failed; its log says how")
    message = with_hint(error)
    match error:
        case QueueFullError() | ClosedError() | MachineError():
            return _unavailable(error, message)
        case ContextError():
            # its hint is about options of the command line
            shorter = f"{error.message}; send a shorter one"
            return ApiError(400, shorter, code="context_length_exceeded")
        case ModelNotFoundError():
            return ApiError(404, message, "model", "model_not_found")
        case ConfigError() | TemplateError() | MemoryBudgetError() | UnsupportedModelError():
            field = _FIELD.match(message)
            return ApiError(400, message, field and field[0])
        case _:
            # it may name a file of this machine
            log_fault(f"a request has failed: {message}")
            return ApiError(500, "the server has failed; its log says how")
