"""``edgellm bench ablate``: what each part is worth, by leaving it out."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from typer import Option

from edgellm.bench import command_options as common
from edgellm.bench.records.collect import exit_code
from edgellm.bench.tables.columns import ABLATION_COLUMNS


def ablate(
    model: common.Model,
    *,
    memory: Annotated[
        str | None,
        Option(
            metavar="SIZE", help="Memory budget of paged variants; default: about half the model."
        ),
    ] = None,
    prompt_tokens: Annotated[
        int, Option(metavar="N", min=1, help="Tokens already in the context, not timed.")
    ] = 64,
    tokens: Annotated[int, Option(metavar="N", min=1, help="Tokens per repetition.")] = 8,
    repetitions: Annotated[
        int, Option(metavar="N", min=1, help="Repetitions of each variant.")
    ] = 3,
    threads: common.Threads = None,
    timeout: common.Timeout = 900.0,
    output: common.Outputs = None,
    json: common.Json = False,
    wide: common.Wide = False,
) -> int:
    """Measure what the KV cache, quantization, prefetch and pinning are worth: a model with one
    of them left out at a time.
    """
    from edgellm.bench.ablation.ablate import AblationSettings, measure_ablations

    settings = AblationSettings(
        memory=common.optional_size(memory),
        prompt_tokens=prompt_tokens,
        tokens=tokens,
        repetitions=repetitions,
        threads=threads,
        timeout=timeout,
    )
    records, stopped = common.collect_records(partial(measure_ablations, model, settings), output)
    common.print_records(records, ABLATION_COLUMNS, json=json, wide=wide)
    return exit_code(records, stopped=stopped)
