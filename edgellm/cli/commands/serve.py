"""``edgellm serve``: a model over HTTP, for OpenAI's clients."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.cli.common.settings_options import expand_settings
from edgellm.device.require_mlx import require_backend
from edgellm.errors import BackendError
from edgellm.settings import CHAT_TEMPERATURE, CHAT_TOP_P, DEFAULT_MODEL, LoadSettings, Sampling

SERVE_SAMPLING = options.SAMPLING_OPTIONS.without("beams", "max_tokens", "stop").with_defaults(
    temperature=CHAT_TEMPERATURE, top_p=CHAT_TOP_P
)


@expand_settings
def serve(
    model: options.Model = DEFAULT_MODEL,
    *,
    host: Annotated[
        str,
        Option(metavar="ADDRESS", help="Address to listen on.", rich_help_panel=headings.SERVER),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        Option(
            metavar="N",
            help="Port to listen on; 0 takes a free one.",
            rich_help_panel=headings.SERVER,
        ),
    ] = 8080,
    parallel: Annotated[
        int | None,
        Option(
            metavar="N",
            help="Answers computed side by side; default: as many as fit into memory.",
            rich_help_panel=headings.SERVER,
        ),
    ] = None,
    settings: Annotated[LoadSettings, options.LOAD_OPTIONS],
    sampling: Annotated[Sampling, SERVE_SAMPLING],
) -> None:
    """Serve a model over HTTP, for OpenAI's clients.

    The sampling options hold where a request does not say.
    """
    require_backend()
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise BackendError(
            f"{error.name} is not installed",
            hint="install it, in edgellm's checkout: pip install '.[serve]'",
        ) from error
    from edgellm.async_llm import AsyncLLM
    from edgellm.cli.common.load_with_progress import open_with_progress, read_model
    from edgellm.console import terminal
    from edgellm.server.answering.models import Models, ServedModel
    from edgellm.server.answering.settings import ServerSettings
    from edgellm.server.app import make_app
    from edgellm.server.run import listen, serve_app

    checkpoint, tokenizer = read_model(model)
    name = checkpoint.folder.path.name
    with (
        listen(host, port) as listening,
        open_with_progress(model, checkpoint, tokenizer, settings) as llm,
    ):
        served = ServedModel(name, AsyncLLM(llm, at_once=parallel))
        app = make_app(
            Models({name: served}), ServerSettings(host=host, port=port, sampling=sampling)
        )
        serve_app(
            app,
            listening,
            lambda url: terminal.note(f"{name} is served at {url}/v1; Ctrl-C ends it"),
        )
