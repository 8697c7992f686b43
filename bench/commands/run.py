"""``edgellm bench [MODEL ...]``: the speed of models in backends."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, cast

import typer
from typer import Argument, Option

from edgellm.bench import command_options as common
from edgellm.bench.backends.registry import BACKENDS, ENDPOINT, Split
from edgellm.bench.records.backend_names import OWN
from edgellm.bench.records.collect import collect, exit_code
from edgellm.bench.report.result_files import open_outputs
from edgellm.bench.speed.workload import (
    GEN_TOKENS,
    MAX_SECONDS,
    PROMPT_TOKENS,
    REPETITIONS,
    TIMEOUT,
    Workload,
    unused_options,
)
from edgellm.bench.tables.columns import speed_columns
from edgellm.cli import headings
from edgellm.cli.command_group import CommandGroup
from edgellm.errors import ModelNotFoundError
from edgellm.files.given_path import given_path
from edgellm.settings import DEFAULT_MODEL, parse_budget


def run(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        Argument(
            metavar="[MODEL ...]",
            help="Folders, Hub ids, GGUF files, names of shapes; default: the bundled model, "
            "and a shape that fits.",
            rich_help_panel=headings.MODEL,
        ),
    ] = None,
    *,
    backend: Annotated[
        str,
        Option(
            metavar="NAME,...",
            help=f"One or more of {', '.join(BACKENDS)}; default: all that are installed.",
            rich_help_panel=headings.MODEL,
        ),
    ] = "",
    prompt_tokens: Annotated[
        str,
        Option(
            "--prompt-tokens",
            "-p",
            metavar=common.NUMBERS,
            help="Prompt lengths; 0 for none.",
            rich_help_panel=headings.TESTS,
        ),
    ] = ",".join(map(str, PROMPT_TOKENS)),
    gen_tokens: Annotated[
        str,
        Option(
            "--gen-tokens",
            "-n",
            metavar=common.NUMBERS,
            help="Generation lengths; 0 for none.",
            rich_help_panel=headings.TESTS,
        ),
    ] = ",".join(map(str, GEN_TOKENS)),
    depth: Annotated[
        str,
        Option(
            "--depth",
            "-d",
            metavar=common.NUMBERS,
            help="Tokens already in the context, not timed.",
            rich_help_panel=headings.TESTS,
        ),
    ] = "0",
    threads: Annotated[
        str,
        Option(
            "--threads",
            "-t",
            metavar=common.NUMBERS,
            help="CPU threads; default: chosen for the machine.",
            rich_help_panel=headings.SPEED,
        ),
    ] = "",
    batch: Annotated[
        str,
        Option(
            "--batch",
            "-b",
            metavar=common.NUMBERS,
            help="Sequences side by side.",
            rich_help_panel=headings.TESTS,
        ),
    ] = "1",
    bits: Annotated[
        str,
        Option(
            metavar=common.NUMBERS,
            help="Bits per weight: quantized variants of a 16-bit model, made once and kept.",
            rich_help_panel=headings.MODEL,
        ),
    ] = "",
    memory: Annotated[
        str,
        Option(
            metavar="SIZE,...",
            help="Memory budgets for edgellm, which pages larger models.",
            rich_help_panel=headings.MEMORY,
        ),
    ] = "",
    kv_bits: common.KVBits = None,
    adapter: Annotated[
        str | None,
        Option(
            metavar="FOLDER",
            help="A LoRA adapter that runs beside edgellm's weights, unmerged.",
            rich_help_panel=headings.MODEL,
        ),
    ] = None,
    dtype: common.DType = None,
    machines: common.Machines = None,
    split: common.SplitOption = "auto",
    tensor_parallel: Annotated[
        str,
        Option(
            metavar=common.NUMBERS,
            help="Ranks that compute each matrix together in torch, each on a GPU of its own.",
            rich_help_panel=headings.SPEED,
        ),
    ] = "1",
    endpoint: Annotated[
        str | None,
        Option(
            metavar="URL",
            help="An OpenAI-compatible server, for the backend endpoint.",
            rich_help_panel=headings.MODEL,
        ),
    ] = None,
    key_variable: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="The environment variable that holds the endpoint's key.",
            rich_help_panel=headings.MODEL,
        ),
    ] = None,
    repetitions: Annotated[
        int,
        Option(
            "--repetitions",
            "-r",
            metavar="N",
            help="Repetitions of each test.",
            rich_help_panel=headings.TESTS,
        ),
    ] = REPETITIONS,
    max_seconds: Annotated[
        float,
        Option(
            metavar="SECONDS",
            min=0,
            help="Begin no further repetition of a test after this long.",
            rich_help_panel=headings.TESTS,
        ),
    ] = MAX_SECONDS,
    timeout: Annotated[
        float,
        Option(
            metavar="SECONDS",
            min=0.1,
            help="Give a test up as failed after this long without progress.",
            rich_help_panel=headings.TESTS,
        ),
    ] = TIMEOUT,
    output: common.Outputs = None,
    json: common.Json = False,
    wide: common.Wide = False,
) -> int:
    """Measure prompt and generation speed in each backend, and how close it comes to what this
    machine can do.
    """
    from edgellm.bench.backends.one_server import key_in, server_parts
    from edgellm.bench.speed.budgets import require_budgets
    from edgellm.bench.speed.floor import with_best_rates
    from edgellm.bench.speed.speed import Speed
    from edgellm.bench.worker.status_line import StatusLine

    outputs = context.with_resource(open_outputs(output))
    if machines is not None and not backend:
        backend = OWN  # others compute on one
    backends, skipped, notes = _backends(backend, models, endpoint)
    if machines is not None and not models:
        models = [DEFAULT_MODEL]
    workload = Workload(
        models=tuple(models or _default_models(backends)),
        backends=backends,
        prompt_tokens=common.split_numbers("prompt-tokens", prompt_tokens),
        gen_tokens=common.split_numbers("gen-tokens", gen_tokens),
        depth=common.split_numbers("depth", depth),
        batch=common.split_numbers("batch", batch),
        threads=common.split_numbers("threads", threads) or (None,),
        bits=common.split_numbers("bits", bits) or (None,),
        memory=tuple(map(parse_budget, common.split_names(memory))) or (None,),
        kv_bits=kv_bits,
        adapter=None if adapter is None else common.absolute_folder(adapter),
        dtype=dtype,
        machines=common.absolute_file(machines),
        split=cast("Split", split),
        tensor_parallel=common.split_numbers("tensor-parallel", tensor_parallel) or (1,),
        repetitions=repetitions,
        max_seconds=max_seconds,
        timeout=timeout,
        endpoint=endpoint,
        key_variable=key_variable,
        skipped=skipped,
        not_measured=tuple(notes),
    )
    if ENDPOINT not in backends:  # whose server has names of its own
        _check_models(models or [], _command_names(context))
    if endpoint:
        server_parts(endpoint)
        key_in(key_variable)
    require_budgets(workload)
    with StatusLine() as status:
        for sentence in [*notes, *unused_options(workload)]:
            status.note(sentence)
        measured, stopped = collect(
            Speed(workload, progress=status.show).records(), outputs, status.note
        )
    records = with_best_rates(measured)
    # What stood there while it was measured lacks the best rates of the whole run.
    for target in outputs:
        target.replace(records)
    common.print_records(records, speed_columns(records), json=json, wide=wide)
    return exit_code(records, stopped=stopped)


def _backends(
    text: str, models: Sequence[str] | None, endpoint: str | None
) -> tuple[tuple[str, ...], frozenset[tuple[str, str]], list[str]]:
    """Return the backends to measure, pairs with models that are skipped, and notes on them.

    Where no backend is named they are those that run here, without the models that take them
    minutes.
    """
    names = tuple(common.split_backends(text))
    if names:
        return names, frozenset(), []
    if endpoint:
        return (ENDPOINT,), frozenset(), []
    from edgellm.bench.speed.defaults import left_out, too_slow, usual_backends

    backends = usual_backends()
    skipped: frozenset[tuple[str, str]] = frozenset()
    if not models:
        skipped = too_slow(backends, _default_models(backends))
    return backends, skipped, left_out(skipped)


def _default_models(backends: Sequence[str]) -> list[str]:
    if set(backends) == {ENDPOINT}:
        return [""]  # the server names its own
    from edgellm.bench.speed.variants import default_models

    return default_models()


def _command_names(context: typer.Context) -> list[str]:
    """Return the names of the commands beside this one."""
    group = context.parent
    assert group is not None, "it runs as a command of bench"
    assert isinstance(group.command, CommandGroup)
    return group.command.list_commands(group)


def _check_models(models: Sequence[str], commands: Sequence[str]) -> None:
    """Refuse what cannot be a model, and a mistyped command, which is taken for one.

    Raises:
        ModelNotFoundError: with the command that may have been meant.
    """
    from edgellm.bench.speed.variants import GGUF
    from edgellm.hub.names import parse_hub_name
    from edgellm.hub.resolve import locate
    from edgellm.models.presets import SHAPES

    for model in models:
        close = get_close_matches(model, commands, n=1, cutoff=0.75)
        if close and not given_path(model).exists():
            raise ModelNotFoundError(
                f"there is no model {model!r}", hint=f"did you mean edgellm bench {close[0]}?"
            )
        if model not in SHAPES and not parse_hub_name(model) and Path(model).suffix != GGUF:
            locate(model)
