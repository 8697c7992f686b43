"""``edgellm serve``: models over HTTP, for OpenAI's and Anthropic's clients."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.cli.common.settings_options import expand_settings
from edgellm.device.require_mlx import require_backend
from edgellm.errors import BackendError, ConfigError
from edgellm.settings import CHAT_TEMPERATURE, CHAT_TOP_P, DEFAULT_MODEL, LoadSettings, Sampling

SERVE_SAMPLING = options.SAMPLING_OPTIONS.without("beams", "max_tokens", "stop").with_defaults(
    temperature=CHAT_TEMPERATURE, top_p=CHAT_TOP_P
)


@expand_settings
def serve(
    model: options.Model = "",
    *,
    named: Annotated[
        list[str] | None,
        Option(
            "--model",
            metavar="NAME=MODEL",
            help="A further model and its name in requests; may be given several times.",
            rich_help_panel=headings.MODEL,
        ),
    ] = None,
    host: Annotated[
        str,
        Option(
            metavar="ADDRESS",
            help="Address to listen on; any but this machine's own needs a key.",
            rich_help_panel=headings.SERVER,
        ),
    ] = "127.0.0.1",
    port: options.Port = 8080,
    api_key_file: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="Keys, one per line, of which each request needs one.",
            rich_help_panel=headings.SERVER,
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        Option(
            metavar="ORIGIN",
            help="A web page that may ask, such as https://example.org; may be given several "
            "times.",
            rich_help_panel=headings.SERVER,
        ),
    ] = None,
    parallel: Annotated[
        int | None,
        Option(
            metavar="N",
            help="Answers that a model computes side by side; default: as many as fit into memory.",
            rich_help_panel=headings.SERVER,
        ),
    ] = None,
    max_queue: Annotated[
        int,
        Option(
            metavar="N",
            help="Answers that may wait for that; others are told to try again.",
            rich_help_panel=headings.SERVER,
        ),
    ] = 1024,
    keep_alive: Annotated[
        str | None,
        Option(
            metavar="TIME",
            help="How long a model stays in memory after its last request: 5m, 90s, 0, or -1 for "
            "ever; default: 5m, with one model for ever.",
            rich_help_panel=headings.SERVER,
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        Option(
            metavar="SECONDS",
            help="Time that an answer may take, waiting included; default: any.",
            rich_help_panel=headings.SERVER,
        ),
    ] = None,
    settings: Annotated[LoadSettings, options.LOAD_OPTIONS],
    sampling: Annotated[Sampling, SERVE_SAMPLING],
) -> None:
    """Serve models over HTTP, for OpenAI's and Anthropic's clients.

    One model is loaded at once, several when they are asked for, within --memory together. A folder
    of model folders serves all of them. The sampling options hold where a request does not say.
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
    from edgellm.cli.server_commands.api_keys import read_keys
    from edgellm.cli.server_commands.served_models import find_models, parse_keep_alive
    from edgellm.console import terminal
    from edgellm.console.progress import show_loading
    from edgellm.server.answering.models import make_models
    from edgellm.server.answering.settings import ServerSettings
    from edgellm.server.http.addresses import require_origins, require_safe_address
    from edgellm.server.run import listen, serve_models, url_of

    sources = find_models(model or ("" if named else DEFAULT_MODEL), named or [])
    if settings.adapter is not None and len(sources) > 1:
        raise ConfigError(
            f"--adapter belongs to one model, and there are {len(sources)}",
            hint="serve the model with its adapter alone",
        )
    if settings.machines is not None and len(sources) > 1:
        raise ConfigError(
            f"--machines have layers of one model, and there are {len(sources)}",
            hint="serve one model over several machines",
        )
    keys = read_keys(api_key_file)
    require_safe_address(host, keys)
    server_settings = ServerSettings(
        api_keys=keys,
        cors_origins=require_origins(cors_origin or ()),
        sampling=sampling,
        timeout=timeout,
    )
    models = make_models(
        sources,
        settings,
        keep_alive=parse_keep_alive(keep_alive, several=len(sources) > 1),
        parallel=parallel,
        max_queue=max_queue,
    )
    with listen(host, port) as listening, show_loading(", ".join(sources)) as progress:
        serve_models(
            models,
            server_settings,
            listening,
            progress=progress,
            on_ready=lambda: terminal.note(
                f"{', '.join(sources)}: {url_of(listening)} has a page, {url_of(listening)}/v1 is"
                " the API; Ctrl-C ends it"
            ),
        )
