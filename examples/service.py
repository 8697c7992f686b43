"""Complete prompts over HTTP: ``uvicorn service:app --app-dir examples`` runs it."""

from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from edgellm import AsyncLLM, EdgeLLMError, QueueFullError


@asynccontextmanager
async def lifespan(app):
    async with await AsyncLLM.load("stories", max_queue=1000) as app.state.llm:
        yield


async def complete(request):
    try:
        stream = request.app.state.llm.stream(**await request.json(), timeout=60)
    except EdgeLLMError as error:
        return JSONResponse(
            {"error": str(error)}, 503 if isinstance(error, QueueFullError) else 400
        )
    return StreamingResponse(token.text async for token in stream)


app = Starlette(routes=[Route("/", complete, methods=["POST"])], lifespan=lifespan)
