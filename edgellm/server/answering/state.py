"""The state that the handlers of a server share, and the models that a request holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from edgellm.server.answering.metrics import Metrics
from edgellm.server.answering.models import Models, ServedModel
from edgellm.server.answering.settings import ServerSettings
from edgellm.server.http.event_stream import while_connected
from edgellm.server.http.fields import Fields

HELD = "edgellm.held_models"


@dataclass(frozen=True, slots=True)
class ServerState:
    """The models of a server, its settings, and what it counts."""

    models: Models
    settings: ServerSettings
    metrics: Metrics = field(default_factory=Metrics)


class HoldsModels:
    """Lets go of the models of a request when its answer has ended, whichever way.

    Args:
        app: answers requests.
        models: the models.
    """

    def __init__(self, app: ASGIApp, models: Models) -> None:
        self._app = app
        self._models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        held: list[str] = []
        scope[HELD] = held
        try:
            await self._app(scope, receive, send)
        finally:
            for name in held:
                self._models.release(name)


def state_of(request: Request) -> ServerState:
    """Return the state of the server that got a request."""
    return cast("ServerState", request.app.state.server)


async def model_of(request: Request, fields: Fields) -> ServedModel:
    """Return the model that a request names in ``model``; it stays until the answer has ended.

    Errors are those of ``Models.hold``; ClientLeft where the client leaves before it is loaded.
    """
    name = fields.text("model")
    models = state_of(request).models
    if models.find(name).served is None:
        model = await while_connected(request, models.hold(name))
    else:
        model = await models.hold(name)
    request.scope[HELD].append(name)
    return model
