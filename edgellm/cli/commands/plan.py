"""``edgellm plan``: what a budget of memory buys, before anything is loaded or downloaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from typer import Option

from edgellm.cli.common import options
from edgellm.cli.common.settings_options import expand_settings
from edgellm.console import terminal
from edgellm.device.require_mlx import require_backend
from edgellm.settings import LoadSettings, parse_budget

PLAN_OPTIONS = options.LOAD_OPTIONS.only(
    "memory", "context", "context_window", "kv_bits", "backend", "draft", "adapter"
)


@expand_settings
def plan(
    model: options.Model,
    *,
    settings: Annotated[LoadSettings, PLAN_OPTIONS],
    beams: Annotated[
        int, Option(metavar="N", help="Leave room for a beam search with this many sequences.")
    ] = 1,
    sim_ram: Annotated[
        str | None, Option(metavar="SIZE", help="Plan for a machine with this much memory: 8GB.")
    ] = None,
    sim_disk: Annotated[
        str | None, Option(metavar="RATE", help="Plan for a machine with a disk this fast: 3GB/s.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Show how a model would run in a memory budget, even before it is downloaded."""
    require_backend()
    from edgellm.console import tables
    from edgellm.device.machine import describe_load
    from edgellm.diagnostics.facts import inspect_model
    from edgellm.memory_plan.plan_checkpoint import warn_of_large_budget
    from edgellm.runtime.forecast import TargetMachine, forecast

    settings = replace(settings, beams=beams)
    target = TargetMachine()
    if sim_ram:
        target = replace(target, memory=parse_budget(sim_ram))
    else:
        warn_of_large_budget(settings)
    if sim_disk:
        target = replace(target, disk=parse_budget(sim_disk.removesuffix("/s")))
    checkpoint, downloaded = inspect_model(model)
    facts = forecast(checkpoint, settings, target, here=downloaded).as_dict()
    facts["busy"] = describe_load()
    if json:
        terminal.write_json({"model": model, **facts})
    else:
        tables.show_plan(facts, name=model, measured=target == TargetMachine())
