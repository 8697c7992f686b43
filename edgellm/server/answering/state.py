"""The state that the handlers of a server share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from edgellm.server.answering.models import Models
from edgellm.server.answering.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class ServerState:
    """The models of a server, and its settings."""

    models: Models
    settings: ServerSettings


def state_of(request: Request) -> ServerState:
    """Return the state of the server that got a request."""
    return cast("ServerState", request.app.state.server)
