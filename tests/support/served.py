"""``edgellm serve`` in this process, and a client of plain HTTP."""

import asyncio
import http.client
import json
import threading
from contextlib import contextmanager

from edgellm import AsyncLLM
from edgellm.server.answering.models import Models
from edgellm.server.answering.settings import ServerSettings
from edgellm.server.app import make_app
from edgellm.server.run import Server, listen
from edgellm.settings import Sampling


class Client:
    """Asks a server on this machine, and reads its answers as they are."""

    def __init__(self, port, model):
        self.port = port
        self.model = model
        self.url = f"http://127.0.0.1:{port}"

    def request(self, method, path, body=None, headers=None, timeout=60):
        """The status, headers and bytes of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def get(self, path, headers=None):
        """The status of an answer, and its object."""
        status, _, text = self.request("GET", path, headers=headers)
        return status, json.loads(text)

    def post(self, path, headers=None, **body):
        """The status of an answer, and its object."""
        status, _, text = self.request("POST", path, {"model": self.model, **body}, headers)
        return status, json.loads(text)

    def events(self, path, headers=None, **body):
        """The events of a streamed answer: their names, and their objects or texts."""
        body = {"model": self.model, "stream": True, **body}
        status, _, text = self.request("POST", path, body, headers)
        assert status == 200, text
        return read_events(text.decode())

    def chat(self, text, **body):
        """The object of a chat completion."""
        messages = [{"role": "user", "content": text}]
        status, value = self.post("/v1/chat/completions", messages=messages, **body)
        assert status == 200, value
        return value


def read_events(text):
    """The events of a stream of server-sent events; comments are left out."""
    events = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line[:1] not in {"", ":"})
        if lines:
            data = lines["data"]
            events.append((lines.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return events


@contextmanager
def served(llm, *, name="tiny", max_queue=None, at_once=None, **settings):
    """A client of a server of this model, which stays loaded."""
    models = Models({name: name})
    models.enter(name, AsyncLLM(llm, max_queue=max_queue, at_once=at_once))
    with serving(models, **settings) as client:
        yield client


@contextmanager
def serving(models, **settings):
    """A client of a server of some models."""
    settings.setdefault("sampling", Sampling(temperature=0))
    ready = threading.Event()
    with listen("127.0.0.1", 0) as listening:
        server = Server(make_app(models, ServerSettings(**settings)), models, ready.set)

        async def run():
            try:
                await server.serve([listening])
            finally:
                await models.aclose()

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        try:
            ready.wait()
            yield Client(listening.getsockname()[1], next(iter(models)).name)
        finally:
            server.should_exit = True
            thread.join()
