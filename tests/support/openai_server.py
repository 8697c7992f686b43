"""A server of our own that answers as OpenAI-compatible and as broken ones do."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from support.local_server import serving

PIECE = 0.004
"""Seconds between two pieces."""


@contextmanager
def openai_server(*, chat_only=False, key=None, usage=True, broken=None, together=1):
    """A server that streams words; yields its URL, and the bodies that it has been sent."""
    seen = []
    everyone = threading.Barrier(together)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def reply(self, code, document):
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        def do_GET(self):
            self.reply(
                200, {"data": [{"id": "words"}]} if self.path == "/v1/models" else {"data": []}
            )

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, body))
            if key and self.headers["Authorization"] != f"Bearer {key}":
                self.reply(401, {"error": {"message": "who are you?"}})
                return
            chat = self.path == "/v1/chat/completions"
            if chat_only and not chat:
                self.reply(404, {"error": "no such route"})
                return
            if not body.get("stream"):
                self.reply(200, {"choices": [{"message": {"content": "7/10"}}]})
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            everyone.wait(60)
            self.stream(body, chat=chat)

        def stream(self, body, *, chat):
            prompt = body["messages"][0]["content"] if chat else body["prompt"]
            events = [
                {"choices": [{"delta": {"content": "word "}} if chat else {"text": "word "}]}
            ] * body["max_tokens"]
            if chat:
                events.insert(0, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
            if not chat:
                ending = {"choices": [{"text": "", "finish_reason": "length"}]}
            else:
                ending = {"choices": [{"delta": {}, "finish_reason": "length"}]}
            events.append(ending)
            if usage:
                counts = {
                    "prompt_tokens": 2 * len(prompt.split()),
                    "completion_tokens": body["max_tokens"],
                }
                events.append({"choices": [], "usage": counts})
            lines = {
                None: [b"data: " + json.dumps(event).encode() for event in events]
                + [b"data: [DONE]"],
                "error": [b'data: {"error": {"message": "out of memory"}}'],
                "silent": [b"data: [DONE]"],
                "no json": [b"data: {what"],
            }[broken]
            for line in lines:
                time.sleep(PIECE)
                self.wfile.write(line + b"\n\n")
                self.wfile.flush()

    with serving(Handler) as local:
        yield local.address, seen
