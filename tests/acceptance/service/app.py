"""examples/service.py with a page that tells of its state: ``python app.py`` serves it.

It prints its port, and ends on SIGTERM. Under /threads it answers with ``LLM.stream``, read in the
threads of Starlette's pool.
"""

import socket
import sys
import threading
from pathlib import Path

import uvicorn
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
from service import app


async def complete_in_threads(request):
    stream = request.app.state.llm.llm.stream(**await request.json())
    return StreamingResponse(token.text for token in stream)


async def health(request):
    llm = request.app.state.llm
    return JSONResponse(
        {
            "running": llm.running,
            "waiting": llm.waiting,
            "kv_bytes": llm.kv_bytes.in_use,
            # the web server keeps its pool of threads for the next requests
            "threads": sorted(
                thread.name
                for thread in threading.enumerate()
                if not thread.name.startswith("AnyIO")
            ),
        }
    )


app.routes.append(Route("/threads", complete_in_threads, methods=["POST"]))
app.routes.append(Route("/health", health))

if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
