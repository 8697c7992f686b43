"""``edgellm bench paging``: a model inside budgets of memory."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from edgellm.bench import command_options as common
from edgellm.bench.records.collect import exit_code
from edgellm.bench.tables.columns import PAGING_COLUMNS
from edgellm.bench.tables.text_tables import megabytes
from edgellm.console.progress import show_doing
from edgellm.console.terminal import say
from edgellm.settings import parse_budget


def paging(
    model: common.Model,
    *,
    memory: Annotated[
        str,
        Option(
            metavar="SIZE,...",
            help="Memory budgets; default: a quarter, half and three quarters of the model, "
            "where it runs in them.",
        ),
    ] = "",
    samples: Annotated[int, Option(metavar="N", min=1, help="Repetitions per budget.")] = 3,
    tokens: Annotated[int, Option(metavar="N", min=1, help="Tokens per repetition.")] = 2,
    context: Annotated[
        int | None, Option(metavar="N", min=1, help="Tokens that the KV cache has room for.")
    ] = None,
    kv_bits: common.KVBits = None,
    threads: common.Threads = None,
    headroom: Annotated[
        str | None,
        Option(
            metavar="SIZE",
            help="Cap each process at its budget and this much (Linux, with control groups).",
        ),
    ] = None,
    json: common.Json = False,
    wide: common.Wide = False,
) -> int:
    """Measure tokens per second of a model larger than its budget, and how close it comes to the
    disk's own speed.
    """
    from edgellm.bench.paging.paging import PagingSettings, measure_paging

    budgets = [parse_budget(text) for text in common.split_names(memory)]
    settings = PagingSettings(
        samples=samples,
        tokens=tokens,
        context=context,
        kv_bits=kv_bits,
        threads=threads,
        headroom=common.optional_size(headroom),
    )
    with show_doing() as show:
        records = measure_paging(model, budgets, settings, progress=show)
    for record in records:
        if record.error:
            budget = megabytes(record.memory_bytes)
            say(f"{record.model}, {budget}: {record.error}")
    common.print_records(records, PAGING_COLUMNS, json=json, wide=wide)
    return exit_code(records, stopped=False)
