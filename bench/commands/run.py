"""The command that has no name of its own: ``edgellm bench [MODEL ...]``."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from edgellm.bench.backends.registry import BACKENDS, ENDPOINT
from edgellm.bench.records.collect import collect, exit_code
from edgellm.bench.speed.workload import (
    GEN_TOKENS,
    MAX_SECONDS,
    PROMPT_TOKENS,
    REPETITIONS,
    TIMEOUT,
    Workload,
)
from edgellm.errors import ConfigError, ModelNotFoundError
from edgellm.settings import parse_size

NUMBERS = "N,N,..."


def run(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL ...]",
            help="Folders, Hub ids, GGUF files, names of shapes; left out: the bundled model, and a shape that fits.",
        ),
    ] = None,
    *,
    backend: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help=f"From {', '.join(BACKENDS)}; left out: all that are installed.",
        ),
    ] = "",
    prompt_tokens: Annotated[
        str, typer.Option(metavar=NUMBERS, help="Lengths of prompts; 0: none.")
    ] = ",".join(map(str, PROMPT_TOKENS)),
    gen_tokens: Annotated[
        str, typer.Option(metavar=NUMBERS, help="Lengths of generations; 0: none.")
    ] = ",".join(map(str, GEN_TOKENS)),
    depth: Annotated[
        str, typer.Option(metavar=NUMBERS, help="Tokens that come before, untimed.")
    ] = "0",
    threads: Annotated[
        str,
        typer.Option(
            metavar=NUMBERS, help="Processor threads for arithmetic; left out: as the machine has."
        ),
    ] = "",
    batch: Annotated[str, typer.Option(metavar=NUMBERS, help="Sequences at once.")] = "1",
    bits: Annotated[
        str,
        typer.Option(
            metavar=NUMBERS,
            help="Bits of a weight: variants of a 16-bit model, made once and kept.",
        ),
    ] = "",
    memory: Annotated[
        str, typer.Option(metavar="SIZE,...", help="Budgets for mlx, which pages what is larger.")
    ] = "",
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE", help="Of activations: float32, bfloat16, float16; left out: the best."
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An OpenAI-compatible server, for the backend endpoint."),
    ] = None,
    key_variable: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The environment variable that holds the endpoint's key."
        ),
    ] = None,
    repetitions: Annotated[int, typer.Option(metavar="N", help="Of each test.")] = REPETITIONS,
    max_seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="No further repetition of a test begins after so many."
        ),
    ] = MAX_SECONDS,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            help="What says nothing for so long is ended, and has failed.",
        ),
    ] = TIMEOUT,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Write json, jsonl, csv, md or html, by the suffix; may be given several times.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    """Measure models in backends: prompts, generations, and how near they come to what this machine could do."""
    from edgellm.bench.backends.openai_endpoint import server_parts
    from edgellm.bench.report.result_files import ResultFile
    from edgellm.bench.speed.speed import Speed, with_best_rates
    from edgellm.bench.speed.workload import unused_options
    from edgellm.bench.worker.status_line import StatusLine

    outputs = [ResultFile(path) for path in output or ()]
    backends, skipped, notes = _backends(backend, models, endpoint)
    workload = Workload(
        models=tuple(models or _default_models(backends)),
        backends=backends,
        prompt_tokens=_numbers("prompt-tokens", prompt_tokens),
        gen_tokens=_numbers("gen-tokens", gen_tokens),
        depth=_numbers("depth", depth),
        batch=_numbers("batch", batch),
        threads=_numbers("threads", threads) or (None,),
        bits=_numbers("bits", bits) or (None,),
        memory=tuple(map(parse_size, _parts(memory))) or (None,),
        dtype=dtype,
        repetitions=repetitions,
        max_seconds=max_seconds,
        timeout=timeout,
        endpoint=endpoint,
        key_variable=key_variable,
        skipped=skipped,
    )
    if ENDPOINT not in backends:  # whose server has names of its own
        _check_names(models or [])
    if endpoint:
        server_parts(endpoint)
    with StatusLine() as status:
        for sentence in [*notes, *unused_options(workload)]:
            status.note(sentence)
        records, stopped = collect(
            Speed(workload, progress=status.show).records(), outputs, status.note
        )
    records = with_best_rates(records)
    for target in outputs:
        target.replace([record.as_dict() for record in records])
    _print(records, json=json)
    return exit_code(records, stopped=stopped)


def _print(records: Sequence[Any], *, json: bool) -> None:
    from edgellm.bench.records.text_tables import as_json, as_table, speed_columns

    if json:
        typer.echo(as_json(records))
    elif records:
        typer.echo(
            as_table(
                [record.as_dict() | {"error": None} for record in records], speed_columns(records)
            )
        )


def _backends(
    text: str, models: Sequence[str] | None, endpoint: str | None
) -> tuple[tuple[str, ...], frozenset[tuple[str, str]], list[str]]:
    """Return the backends to measure, the pairs that are left out, and what a person is told of it.

    Where none is named they are those that run here, without the models that take them minutes.
    """
    chosen = tuple(_parts(text))
    if chosen:
        return chosen, frozenset(), []
    if endpoint:
        return (ENDPOINT,), frozenset(), []
    from edgellm.bench.speed.defaults import not_measured, too_slow, usual_backends

    here = usual_backends()
    skipped: frozenset[tuple[str, str]] = frozenset()
    if not models:
        skipped = too_slow(here, _default_models(here))
    return here, skipped, not_measured(skipped)


def _default_models(backends: Sequence[str]) -> list[str]:
    if set(backends) == {ENDPOINT}:
        return [""]  # the server names its own
    from edgellm.bench.speed.variants import default_models

    return default_models()


def _check_names(models: Sequence[str]) -> None:
    """Refuse what can be no model, and a mistyped command, which is taken for one. Raises ModelNotFoundError."""
    from edgellm.bench.app import app
    from edgellm.bench.speed.variants import GGUF
    from edgellm.hub.resolve import is_hub_id, locate
    from edgellm.models.presets import SHAPES

    names = [
        str(command.name or getattr(command.callback, "__name__", ""))
        for command in app.registered_commands
    ]
    for model in models:
        close = get_close_matches(model, names, n=1, cutoff=0.75)
        if close and not Path(model).exists():
            raise ModelNotFoundError(
                f"there is no model {model!r}", hint=f"did you mean edgellm bench {close[0]}?"
            )
        if model not in SHAPES and not is_hub_id(model) and Path(model).suffix != GGUF:
            locate(model)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    parts = _parts(text)
    if not all(part.isdecimal() and part.isascii() and len(part) < 10 for part in parts):
        raise ConfigError(f"--{option} {text} is no list of numbers", hint="write it as 1,2,4")
    return tuple(map(int, parts))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
