"""A server that answers the page with what a test says: streams, refusals, broken streams."""

import asyncio
import json
import socket
import threading
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from edgellm.server.page import show_page


class StandIn:
    """What the server answers, and what it was asked.

    Attributes:
        answers: those to come, each used once: a text, or (status, headers), or a list of events.
        bodies: of the requests so far.
        key: that requests must have.
    """

    def __init__(self):
        self.answers = []
        self.bodies = []
        self.key = None
        self.url = ""

    async def chat(self, request):
        """Give the next answer."""
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "no key"}}, 401)
        self.bodies.append(await request.json())
        answer = self.answers.pop(0)
        if isinstance(answer, tuple):
            status, headers = answer
            return JSONResponse({"error": {"message": f"status {status}"}}, status, headers)
        if isinstance(answer, str):
            answer = whole(answer)
        return StreamingResponse(sent(answer), media_type="text/event-stream")

    async def models(self, request):
        """Name two models, one of which is in memory."""
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "no key"}}, 401)
        models = [{"id": "first", "state": "loaded", "memory_bytes": 2_140_000_000}]
        return JSONResponse({"data": [*models, {"id": "second", "state": "unloaded"}]})


def piece(finish=None, **delta):
    """A chunk of an answer."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def whole(text, thinking=""):
    """The events of an answer that comes in small pieces."""
    pieces = [piece(role="assistant", content="")]
    if thinking:
        pieces.append(piece(reasoning_content=thinking))
    pieces += [piece(content=text[at : at + 40]) for at in range(0, len(text), 40)]
    pieces.append(piece("stop"))
    usage = {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}
    return [*pieces, {"choices": [], "usage": usage}, "[DONE]"]


async def sent(events):
    """The bytes of events, cut where no reader expects it; a number waits so many seconds."""
    for event in events:
        if isinstance(event, float):
            await asyncio.sleep(event)
            continue
        data = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
        text = f": keep-alive\r\n\r\ndata: {data}\r\n\r\n".encode()
        middle = len(text) // 2
        for part in (text[:middle], text[middle:-1], text[-1:]):
            yield part
            await asyncio.sleep(0)


@contextmanager
def standing_in():
    """A running server of this kind."""
    stand_in = StandIn()
    app = Starlette(
        routes=[
            Route("/", show_page),
            Route("/v1/models", stand_in.models),
            Route("/v1/chat/completions", stand_in.chat, methods=["POST"]),
        ]
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stand_in.url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        config = uvicorn.Config(app, log_level="warning", ws="none", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield stand_in
        finally:
            server.should_exit = True
            thread.join()
