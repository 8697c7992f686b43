"""Streams of a server of our own, whole and broken: what a client makes of each."""

import json
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import pytest
from support.local_server import serving

from edgellm.bench.serving.client import Client

EVENTS = "text/event-stream; charset=utf-8"


def event(text="", reason=None, **more):
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]
    return b"data: " + json.dumps({"choices": choices} | more).encode() + b"\n\n"


USAGE = event(reason="length", usage={"prompt_tokens": 7, "completion_tokens": 6})
DONE = b"data: [DONE]\n\n"
STREAMS = {
    "/whole": [event("a"), event("b"), event("c"), USAGE, DONE],
    "/uncounted": [event("a"), event("b", "stop"), DONE],
    "/texts": [b'data: {"choices": [{"text": "a", "finish_reason": "stop"}]}\n\n', DONE],
    "/split": [b": hi\n\ndata", b": " + event("a")[6:-2], b"\r\n\r\n" + event("b", "stop") + DONE],
    "/closing": [event("a", "stop"), DONE],
    "/endless-tail": [event("a", "stop"), DONE, 30.0],
    "/cut": [event("a"), DONE],
    "/ended": [event("a")],
    "/dropped": [event("a"), "drop"],
    "/error": [event("a"), b'data: {"error": {"message": "out of memory"}}\n\n', DONE],
    "/no-json": [b"data: {what\n\n", DONE],
    "/a-list": [b"data: [1]\n\n", DONE],
    "/empty": [event("", "stop"), DONE],
    "/silent": [event("a"), 30.0],
    "/broken": [event("a"), "what\r\n"],
    "/below-zero": [event("a"), "-5\r\n"],
    "/slow": [event("a"), 0.2] * 30,
}


class Handler(BaseHTTPRequestHandler):
    """Sends the stream of its path: bytes as a chunk, a number as seconds of silence."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle(self):
        with suppress(ConnectionError):  # the client has gone
            super().handle()

    def do_POST(self):
        self.server.state["seen"].append((self.path, self.client_address, self.headers))
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path not in STREAMS:
            kind = {"/html": "text/html", "/none": None}.get(self.path)
            self.send_response(200 if kind else 503)
            self.send_header("Content-Type", kind or "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")
            return
        self.send_response(200)
        self.send_header("Content-Type", EVENTS)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in STREAMS[self.path]:
            if isinstance(part, float):
                self.server.state["over"].wait(part)
            elif isinstance(part, str) and part != "drop":
                self.wfile.write(part.encode())
            elif part == "drop":
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            else:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.close_connection = self.path == "/closing"  # which it has not said


@pytest.fixture(scope="module")
def server():
    with serving(Handler, seen=[], over=threading.Event()) as local:
        yield local
        local.state["over"].set()


@pytest.fixture
def ask(server):
    """A function that asks for a path, and returns the answer."""
    clients = []

    def ask(path, timeout=60.0, key="secret"):
        headers = {"Authorization": f"Bearer {key}"}
        client = Client(server.address + path, headers, timeout=timeout, max_tokens=8)
        clients.append(client)
        return client.ask(b"{}")

    yield ask
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("path", "pieces", "tokens", "reason"),
    [
        ("/whole", 3, 6, "length"),
        ("/uncounted", 2, 2, "stop"),
        ("/texts", 1, 1, "stop"),
        ("/split", 2, 2, "stop"),
        ("/endless-tail", 1, 1, "stop"),
    ],
)
def test_a_whole_stream_has_its_pieces_its_tokens_and_its_reason(ask, path, pieces, tokens, reason):
    answer = ask(path)
    assert answer.failure is None
    assert (len(answer.arrivals), answer.tokens, answer.finish_reason) == (pieces, tokens, reason)
    assert answer.asked <= answer.arrivals[0] <= answer.arrivals[-1] <= answer.ended


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/none", "HTTP 503"),
        ("/html", "content type text/html"),
        ("/cut", "cut: no finish_reason"),
        ("/ended", "cut: no finish_reason"),
        ("/dropped", "cut: the connection ended"),
        ("/error", "error in the stream"),
        ("/no-json", "not JSON"),
        ("/a-list", "not JSON"),
        ("/empty", "no text"),
        ("/silent", "timed out"),
        ("/slow", "timed out"),
        ("/broken", "not HTTP: broken chunks"),
        ("/below-zero", "not HTTP: broken chunks"),
    ],
)
def test_each_failure_has_its_kind(ask, path, kind):
    answer = ask(path, timeout=0.3 if kind == "timed out" else 60.0)
    assert answer.failure == kind
    assert answer.ended >= answer.asked


def test_a_server_that_is_not_there_is_no_connection():
    with socket.socket() as held:  # bound, but nobody listens
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1/completions"
        answer = Client(url, {}, timeout=60.0, max_tokens=8).ask(b"{}")
    assert answer.failure == "no connection"


def test_a_connection_is_kept_and_opened_again_where_the_server_has_closed_it(server):
    for path, is_same in (("/whole", True), ("/closing", False)):
        client = Client(server.address + path, {"X-Word": "yes"}, timeout=60.0, max_tokens=8)
        begin = len(server.state["seen"])
        assert [client.ask(b"{}").failure for _ in range(2)] == [None, None]
        (_, port, headers), (_, second_port, _) = server.state["seen"][begin:]
        assert (port == second_port) is is_same
        assert headers["X-Word"] == "yes"
        client.close()


def test_times_count_from_when_a_request_was_due(server):
    client = Client(f"{server.address}/whole", {}, timeout=60.0, max_tokens=8)
    due = time.perf_counter() - 100.0
    assert client.ask(b"{}", due=due).arrivals[0] - due > 100.0
    client.close()
