#!/bin/sh
# anthropic 2.14.0 (PyPI): `client.messages.create` and `client.messages.stream` take no temperature,
# top_p or top_k.
#
# One would expect: they are settings of the Messages API, which servers that speak it read, and
# programs written for earlier versions pass them.
#
# What happens: a TypeError before anything is sent. `extra_body` still sends them.
#
# Output seen (Python 3.11):
#   create(temperature=0): TypeError: Messages.create() got an unexpected keyword argument 'temperature'
#   create(extra_body={"temperature": 0}) sends temperature 0
#
# For programs: pass them with extra_body, which other servers of the Messages API read.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check anthropic==2.14.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import http.server
import json
import threading

import anthropic

seen = []


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        message = {"id": "a", "type": "message", "role": "assistant", "model": "m",
                   "content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn",
                   "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
        data = json.dumps(message).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.server_port}", auth_token="none")
asked = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "Say hello"}]}
try:
    client.messages.create(**asked, temperature=0)
    raise SystemExit("changed: create takes a temperature")
except TypeError as error:
    print(f"create(temperature=0): TypeError: {error}")
client.messages.create(**asked, extra_body={"temperature": 0})
print(f'create(extra_body={{"temperature": 0}}) sends temperature {seen[0]["temperature"]}')
assert seen[0]["temperature"] == 0 and len(seen) == 1
PYTHON
