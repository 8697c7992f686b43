"""HTTP with one server: what a redirect, an endless reply or a key in a URL leads to."""

import json
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.local_server import serving

from edgellm.bench.backends.one_server import (
    Bounds,
    key_in,
    read_lines,
    read_pieces,
    same_server,
    without_key,
)
from edgellm.bench.backends.openai_endpoint import Endpoint
from edgellm.cli.app import main
from edgellm.errors import BackendError, ConfigError

KEY = "sk-secret-0123456789"


@contextmanager
def server(answer):
    """A server that calls ``answer(handler)``; yields its URL, and what it is sent."""
    sent = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers["Content-Length"] or 0)
            sent.append((self.path, dict(self.headers.items()), self.rfile.read(length)))
            answer(self)

        def do_POST(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    with serving(Handler) as local:
        yield local.address, sent


def reply(handler, document, status=200, headers=()):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    handler.send_response(status)
    for name, value in headers:
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def say_everything(handler):
    """Answer as a server that has a model, completes and chats."""
    message = {"message": {"content": "yes"}, "text": "yes"}
    if "stream" in handler.headers.get("Accept", "") and handler.command == "POST":
        reply(handler, b"data: " + json.dumps({"choices": [message]}).encode() + b"\n\n")
    else:
        reply(handler, {"data": [{"id": "m"}], "choices": [message]})


CALLS = {
    "models": lambda url: Endpoint(url, key=KEY),
    "completion": lambda url: Endpoint(url, "m", key=KEY).complete("a word", 1),
    "conversation": lambda url: Endpoint(url, "m", key=KEY).reply([]),
}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_redirect_leads_to_another_server(status, call):
    with ExitStack() as servers:
        other, sent_on = servers.enter_context(server(say_everything))

        def redirect(handler):
            reply(handler, b"", status, [("Location", f"http://user:pass@{other[7:]}/v1/models")])

        url, sent = servers.enter_context(server(redirect))
        with pytest.raises(BackendError, match="not followed") as raised:
            call(url)
    assert sent[0][1]["Authorization"] == f"Bearer {KEY}"
    assert sent_on == [], "neither a key nor a prompt"
    assert other in raised.value.message
    assert KEY not in str(raised.value)
    assert "pass" not in raised.value.message


@pytest.mark.parametrize("status", [307, 308])
def test_a_server_may_redirect_to_itself_with_all_that_it_was_sent(status):
    def redirect(handler):
        if handler.path.startswith("/new"):
            say_everything(handler)
        else:
            reply(handler, b"", status, [("Location", "/new" + handler.path)])

    with server(redirect) as (url, sent):
        assert Endpoint(url, "m", key=KEY).complete("a word", 1).tokens == 1
    assert [path for path, _, _ in sent] == ["/v1/completions", "/new/v1/completions"]
    assert sent[0][2] == sent[1][2]
    assert sent[1][1]["Authorization"] == f"Bearer {KEY}"


def test_a_server_is_its_scheme_host_and_port():
    same = [
        ("http://h/v1", "http://h:80/x"),
        ("https://H/", "https://h:443"),
        ("http://h", "http://u@h"),
    ]
    other = [
        ("https://h/", "http://h/"),
        ("http://h/", "https://h/"),
        ("http://h/", "http://h:8080/"),
        ("http://h/", "http://h.evil.org/"),
        ("http://h/", "http://h@evil.org/"),
        ("http://h/", "//h/"),
        ("http://h/", "http://h:port/"),
    ]
    assert all(same_server(*pair) for pair in same)
    assert not any(same_server(*pair) for pair in other)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@host/v1",
        "user:hunter2@host",
        "http://host/v1?key=hunter2",
        "http://host/v1#hunter2",
        "http://[hunter2@host",
    ],
)
@pytest.mark.parametrize("command", [["bench", "--endpoint"], ["bench", "rate", "FILE", "--judge"]])
def test_a_key_in_a_url_is_refused_and_not_shown(tmp_path, capsys, url, command):
    file = tmp_path / "answers.json"
    record = {"kind": "queries", "model": "m", "backend": "edgellm", "device": "d", "test": "query"}
    record |= {"environment": {}, "question": "Why?", "answer": "So."}
    file.write_text(json.dumps({"schema": 1, "records": [record]}))
    assert main([*(str(file) if word == "FILE" else word for word in command), url]) == 2
    shown = capsys.readouterr()
    assert "--key-variable" in shown.err
    assert "hunter2" not in shown.err + shown.out


@pytest.mark.parametrize("value", ["", " ", "two\nlines", "schl\u00fcssel", "\x1b[0m"])
def test_what_can_be_no_key_is_refused_and_not_shown(monkeypatch, value):
    monkeypatch.setenv("SOME_KEY", value)
    with pytest.raises(ConfigError, match="SOME_KEY") as raised:
        key_in("SOME_KEY")
    assert not value.strip() or value not in raised.value.message


def test_a_key_that_the_server_repeats_is_hidden(capsys, monkeypatch, tmp_path):
    def repeat(handler):
        told = handler.headers["Authorization"]
        if handler.path.endswith("models"):
            reply(handler, {"data": [{"id": f"model of {told}"}]})
        else:
            reply(handler, {"error": {"message": f"wrong key {told}"}}, 401)

    monkeypatch.setenv("SOME_KEY", KEY)
    page = tmp_path / "page.html"
    with server(repeat) as (url, _):
        command = ["bench", "--endpoint", url, "--key-variable", "SOME_KEY", "--gen-tokens", "0"]
        assert main([*command, "--json", "--output", str(page)]) == 1
    shown = capsys.readouterr()
    assert "wrong key Bearer ***" in shown.out
    assert KEY not in shown.out + shown.err + page.read_text()
    assert without_key("EMPTY words stay", "EMPTY") == "EMPTY words stay"


EVENTS = (b'data: {"a": "' + b"x" * 8000 + b'"}\n') * 64


def endless(handler, data, status=200):
    handler.send_response(status)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(data)
    except OSError:  # nobody listens any more
        pass


def short(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"data: {")


STRANGE = {
    "an endless line": lambda handler: endless(handler, b"x" * 65536),
    "endless lines": lambda handler: endless(handler, EVENTS),
    "a short reply": short,
    "no protocol": lambda handler: handler.wfile.write(b"\x00\x1b]0;owned\x07\n"),
    "no length": lambda handler: handler.wfile.write(
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"
    ),
    "bad chunks": lambda handler: handler.wfile.write(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    ),
    "a deep document": lambda handler: reply(handler, b'data: {"a":' + b"[" * 100_000),
    "a text for a delta": lambda handler: reply(handler, b'data: {"choices": [{"delta": "x"}]}\n'),
    "a number for choices": lambda handler: reply(handler, b'data: {"choices": 7}\n'),
    "half a character": lambda handler: reply(handler, b'data: {"error": "\\ud800"}\n'),
    "control characters": lambda handler: reply(handler, b"\x1b[2J\x1b]52;c;eA==\x07" * 99, 500),
    "a huge error": lambda handler: endless(handler, b"e" * 65536, 500),
    "a list": lambda handler: reply(handler, b"data: []\n"),
    "a redirect without an end": lambda handler: reply(handler, b"", 302, [("Location", "/v1/x")]),
    "a redirect to nothing": lambda handler: reply(handler, b"", 302, [("Location", "http://[")]),
    "a redirect to a file": lambda handler: reply(handler, b"", 302, [("Location", "file:///etc")]),
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_strange_reply_is_a_clear_error(strange, call):
    with server(strange) as (url, _), pytest.raises(BackendError) as raised:
        call(url)
    assert raised.value.message.isprintable()
    assert len(raised.value.message) < 1000


class Pieces:
    """A stream that gives one piece after the other."""

    def __init__(self, pieces):
        self.pieces = list(pieces)

    def read1(self, _):
        return self.pieces.pop(0) if self.pieces else b""


@given(st.lists(st.binary(min_size=1, max_size=5) | st.just(b"\n"), max_size=9))
def test_lines_come_whole_however_they_are_cut(pieces):
    lines = list(read_lines(Pieces(pieces), Bounds(1000, 60.0)))
    assert lines == b"".join(pieces).split(b"\n")


def test_a_reply_is_bounded_in_bytes_and_in_time():
    with pytest.raises(BackendError, match="more than 3 bytes"):
        list(read_pieces(Pieces([b"ab", b"cd"]), Bounds(3, 60.0)))
    with pytest.raises(BackendError, match="more than -1 seconds"):
        list(read_pieces(Pieces([b"ab"]), Bounds(3, -1.0)))


def test_counts_that_are_none_are_left_out():
    def count(handler):
        events = [{"choices": [{"text": "a"}]}]
        events += [
            {"usage": {"prompt_tokens": value, "completion_tokens": value}}
            for value in (-1, "7", 1e9, None, 10**30, [1], True)
        ]
        reply(handler, b"".join(b"data: " + json.dumps(one).encode() + b"\n" for one in events))

    with server(count) as (url, _):
        completion = Endpoint(url, "m").complete("a word", 1)
    assert (completion.prompt_tokens, completion.completion_tokens) == (None, None)
