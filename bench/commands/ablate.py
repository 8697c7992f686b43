"""The command that leaves parts out: ``edgellm bench ablate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from edgellm.bench.commands.disk import Json
from edgellm.bench.commands.queries import Outputs
from edgellm.bench.records.collect import collect, exit_code
from edgellm.bench.records.text_tables import Column, megabytes, number
from edgellm.settings import parse_size

COLUMNS: Mapping[str, Column] = {
    "variant": ("variant", str),
    "bits": ("bits", str),
    "budget": ("memory_bytes", megabytes),
    "tokens/s": ("tokens_per_second", number(2)),
    "s/token": ("seconds_per_token", number(4)),
    "times as long": ("slowdown", number(2)),
    "pinned": ("pinned_layers", str),
    "of": ("layers", str),
    "read a token": ("bytes_per_token", megabytes),
    "peak": ("peak_memory_bytes", megabytes),
}


def ablate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A folder, a Hub id, or the name of the bundled model."
        ),
    ],
    *,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Budget of the paged ones; left out: about half the model."
        ),
    ] = None,
    prompt_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Tokens that come before, untimed.")
    ] = 64,
    tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of a repetition.")] = 8,
    repetitions: Annotated[int, typer.Option(metavar="N", min=1, help="Of each variant.")] = 3,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processor threads for arithmetic.")
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, help="What says nothing for so long has failed."),
    ] = 900.0,
    output: Outputs = None,
    json: Json = False,
) -> int:
    """Measure what the KV cache, quantization, prefetch and pinning are worth: a model with one of them left out at a time."""
    from edgellm.bench.ablation.ablate import AblationSettings, measure_ablations
    from edgellm.bench.records.text_tables import as_json, as_table
    from edgellm.bench.report.result_files import ResultFile
    from edgellm.bench.worker.status_line import StatusLine

    settings = AblationSettings(
        memory=parse_size(memory) if memory else None,
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        repetitions=repetitions,
        threads=threads,
        timeout=timeout,
    )
    outputs = [ResultFile(path) for path in output or ()]
    with StatusLine() as status:
        records, stopped = collect(
            measure_ablations(model, settings, progress=status.show), outputs, status.note
        )
    if json:
        typer.echo(as_json(records))
    elif records:
        typer.echo(as_table(records, COLUMNS))
    return exit_code(records, stopped=stopped)
