"""``edgellm bench serve``: load servers with many users at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from edgellm.bench import command_options as common
from edgellm.bench.records.collect import exit_code
from edgellm.bench.serving.load import CHAT, ROUTES, Level, Load, Server, parse_server
from edgellm.bench.tables.columns import ratio_sentences, serving_columns
from edgellm.cli import headings
from edgellm.console.terminal import note
from edgellm.errors import BackendError, ConfigError

DURATION = 10.0
MAX_KEY = 4096
INSTALL = "install it, in edgellm's checkout: pip install '.[load]'"


def serve(
    url: Annotated[
        str, Argument(metavar="URL", help="An OpenAI-compatible server; NAME=URL gives it a name.")
    ],
    *,
    beside: Annotated[
        list[str] | None,
        Option(
            metavar="NAME=URL",
            help="Another server, loaded in turns with the first; may be given several times.",
            rich_help_panel=headings.MODEL,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="The model's name on the servers, or given once for each, in their order; "
            "default: the first that each has.",
            rich_help_panel=headings.MODEL,
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Holds the key of URL; the servers beside it get none.",
            rich_help_panel=headings.MODEL,
        ),
    ] = None,
    users: Annotated[
        str,
        Option(
            "--users",
            "-u",
            metavar=common.NUMBERS,
            help="Users at once; each asks again when its answer has ended.",
            rich_help_panel=headings.TESTS,
        ),
    ] = "1,2,4,8,16,32,64",
    rate: Annotated[
        str,
        Option(
            metavar="X,X,...",
            help="Requests per second, at random moments, however many are under way; "
            "instead of users.",
            rich_help_panel=headings.TESTS,
        ),
    ] = "",
    spawn_rate: Annotated[
        float | None,
        Option(
            metavar="X",
            help="Users that start per second; default: all at once.",
            rich_help_panel=headings.TESTS,
        ),
    ] = None,
    duration: Annotated[
        float,
        Option(
            metavar="SECONDS",
            min=0.1,
            help="Length of a turn, once all users have started.",
            rich_help_panel=headings.TESTS,
        ),
    ] = DURATION,
    requests: Annotated[
        int | None,
        Option(
            metavar="N",
            min=1,
            help="Requests of a turn, however long they take; instead of --duration.",
            rich_help_panel=headings.TESTS,
        ),
    ] = None,
    turns: common.Turns = 1,
    endpoint: Annotated[
        str,
        Option(metavar="|".join(ROUTES), help="The route.", rich_help_panel=headings.TESTS),
    ] = CHAT,
    prompt_tokens: Annotated[
        int,
        Option(
            "--prompt-tokens",
            "-p",
            metavar="N",
            min=1,
            max=1_000_000,
            help="Words of a prompt, about a token each; no two prompts begin alike.",
            rich_help_panel=headings.PROMPT,
        ),
    ] = 32,
    prompts: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Prompts of your own, one per line, asked in turn.",
            rich_help_panel=headings.PROMPT,
        ),
    ] = None,
    max_tokens: Annotated[
        int, Option(metavar="N", min=1, max=1_000_000, help="Maximum tokens per answer.")
    ] = 64,
    temperature: Annotated[
        float, Option(metavar="X", min=0, help="0 always takes the most likely token.")
    ] = 0.0,
    seed: Annotated[int, Option(metavar="N", help="Seed of the moments of --rate.")] = 0,
    timeout: Annotated[
        float, Option(metavar="SECONDS", min=0.1, help="A request that takes longer has failed.")
    ] = 120.0,
    output: common.Outputs = None,
    json: common.Json = False,
    wide: common.Wide = False,
) -> int:
    """Load OpenAI-compatible servers with many users at once: first token, gaps between tokens,
    throughput, failures.
    """
    from edgellm.bench.serving.prompts import read_prompts
    from edgellm.bench.serving.serving import measure_serving

    if not _is_here("locust"):
        raise BackendError("a load test needs locust, which is not installed", hint=INSTALL)
    load = Load(
        levels=levels_of(users, rate),
        spawn_rate=spawn_rate,
        duration=duration,
        requests=requests,
        turns=turns,
        endpoint=endpoint,
        prompt_tokens=prompt_tokens,
        prompts=read_prompts(prompts) if prompts else (),
        max_tokens=max_tokens,
        temperature=temperature,
        timeout=timeout,
        seed=seed,
    )
    servers = _servers([url, *(beside or [])], model or [], api_key_file)
    measure = partial(measure_serving, servers, load)
    records, stopped = common.collect_records(measure, output)
    columns, sentences = serving_columns(records), ratio_sentences(records)
    common.print_records(records, columns, json=json, wide=wide, sentences=sentences)
    shares = [record.client_share for record in records if record.client_share]
    if shares and not json:
        note(f"the client took {100 * min(shares):.0f} to {100 * max(shares):.0f}% of a core")
    return exit_code(records, stopped=stopped)


def _is_here(package: str) -> bool:
    """Return whether a package can be imported."""
    try:
        return find_spec(package) is not None
    except ValueError:  # it is hidden
        return False


def levels_of(users: str, rate: str) -> list[Level]:
    """Return the points of the curve. Raises ConfigError."""
    if not rate:
        return [
            Level(users=number) for number in dict.fromkeys(common.split_numbers("users", users))
        ]
    try:
        rates = [float(part) for part in common.split_names(rate)]
    except ValueError:
        raise ConfigError(
            f"--rate {rate} is not a list of numbers", hint="write it as 0.5,1,2"
        ) from None
    return [Level(rate=number) for number in dict.fromkeys(rates)]


def _servers(texts: Sequence[str], models: Sequence[str], key_file: Path | None) -> list[Server]:
    """Return the servers with the names of their models, for which each is asked.

    Raises:
        ConfigError: a URL is none, two servers have one name, or the file holds no key.
        BackendError: a server does not say what models it has.
    """
    from edgellm.bench.backends.openai_endpoint import Endpoint

    key = key_in_file(key_file)
    servers: dict[str, Server] = {}
    for text, model in zip(texts, models_of(models, len(texts)), strict=True):
        name, url = parse_server(text)
        if name in servers:
            raise ConfigError(
                f"two servers are called {name}", hint="give each a name: --beside NAME=URL"
            )
        endpoint = Endpoint(url, model, key=key)
        servers[name] = Server(name, endpoint.base, endpoint.model, key)
        key = None  # it is the first server's
    return list(servers.values())


def models_of(names: Sequence[str], servers: int) -> list[str]:
    """Return the name of each server's model; empty where it is to be asked.

    Raises:
        ConfigError: there are several names, and not one for each server.
    """
    if len(names) <= 1:
        return [*names, ""][:1] * servers
    if len(names) != servers:
        raise ConfigError(
            f"there are {servers} servers and {len(names)} models",
            hint="give --model once, or once for each server",
        )
    return list(names)


def key_in_file(path: Path | None) -> str | None:
    """Return the key in a file. Raises ConfigError where there is none."""
    if path is None:
        return None
    from edgellm.files.bounded import read_given_text

    hint = "put the key alone into a text file"
    key = read_given_text(path, MAX_KEY, hint=hint).strip()
    if not key or not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{path} holds no key", hint=hint)
    return key
