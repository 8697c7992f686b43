#!/bin/sh
# openai 3.57.0 (PyPI): `get_final_completion()` of `client.chat.completions.stream()` raises
# LengthFinishReasonError for plain text, without response_format or tools, when the server ends the
# answer for its length.
#
# One would expect: finish_reason "length" is a normal end of a text, as it is for
# `create(stream=True)`, which returns it; the error is there for structured output that was cut
# ("Could not parse response content as the length limit was reached").
#
# What happens: the helper raises although there is nothing to parse, so its caller never gets the
# final completion.
#
# Output seen (Python 3.11):
#   create(stream=True): 'Hel', 'lo', finish_reason length
#   get_final_completion(): LengthFinishReasonError
#
# For servers: a small default of max_tokens breaks every user of the helper; leave it to the end of
# the context. For users: give max_tokens with room, or read create(stream=True).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check openai==3.57.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import http.server
import json
import threading

import openai


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for delta, reason in (({"role": "assistant", "content": "Hel"}, None),
                              ({"content": "lo"}, None), ({}, "length")):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            chunk = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m",
                     "choices": [choice]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="none")
asked = {"model": "m", "messages": [{"role": "user", "content": "Say hello"}]}
chunks = list(client.chat.completions.create(**asked, stream=True))
texts = [chunk.choices[0].delta.content for chunk in chunks]
reason = chunks[-1].choices[0].finish_reason
print(f"create(stream=True): {texts[0]!r}, {texts[1]!r}, finish_reason {reason}")
try:
    with client.chat.completions.stream(**asked) as stream:
        stream.get_final_completion()
    raised = "nothing"
except openai.LengthFinishReasonError as error:
    raised = type(error).__name__
print(f"get_final_completion(): {raised}")
assert reason == "length"
assert raised == "LengthFinishReasonError", raised
PYTHON
