#!/bin/sh
# starlette 1.10.0 with uvicorn 0.54.0 (PyPI): where a client leaves in the middle of a
# StreamingResponse over a plain generator, the generator's `finally` does not run.
#
# One would expect: a generator that is left is closed, as `for` closes nothing but a finished
# response has no further use of it; and that a plain and an asynchronous generator behave alike.
#
# What happens: the asynchronous generator gets CancelledError within milliseconds. The plain one,
# which Starlette iterates in a thread pool, is only forgotten: what it holds is let go when the
# garbage collector comes by, which in a quiet server may be never.
#
# Output seen (x86-64, Python 3.11):
#   starlette 1.10.0: asynchronous generator closed: True; plain generator closed: False
#   after gc.collect(): plain generator closed: True
#
# For users: a model's slot, a lock or a file that a plain generator holds stays taken. Write an
# asynchronous generator, or close the plain one yourself (contextlib.closing in a wrapper).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check starlette==1.10.0 uvicorn==0.54.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import asyncio
import gc
import socket
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

closed = {"plain": False, "asynchronous": False}


def plain():
    try:
        while True:
            yield b"x"
            time.sleep(0.01)
    finally:
        closed["plain"] = True


async def asynchronous():
    try:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)
    finally:
        closed["asynchronous"] = True


routes = [
    Route("/plain", lambda _: StreamingResponse(plain())),
    Route("/asynchronous", lambda _: StreamingResponse(asynchronous())),
]
listening = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error"))
gc.disable()
threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
for name in closed:
    with socket.create_connection(listening.getsockname()) as client:
        client.sendall(f"GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        while b"x" not in client.recv(4096):
            pass
time.sleep(2)
seen = dict(closed)
gc.collect()
print(f"starlette 1.10.0: asynchronous generator closed: {seen['asynchronous']};", end=" ")
print(f"plain generator closed: {seen['plain']}")
print(f"after gc.collect(): plain generator closed: {closed['plain']}")
assert seen == {"plain": False, "asynchronous": True}, seen
PYTHON
