"""``edgellm plan``: what a budget of memory buys, before anything is loaded or downloaded."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.cli.common.settings_options import expand_settings
from edgellm.cli.common.train_options import TRAIN_OPTIONS, TrainOptions
from edgellm.console import terminal
from edgellm.console.training.plan_table import show_together_plan, show_training_plan
from edgellm.device.require_mlx import require_backend
from edgellm.errors import ConfigError, UnsupportedModelError
from edgellm.settings import LoadSettings, parse_budget

if TYPE_CHECKING:
    from edgellm.models.through_mlx_lm.checkpoint import AnyCheckpoint
    from edgellm.runtime.forecast import TargetMachine

PLAN_OPTIONS = options.LOAD_OPTIONS.only(
    "memory",
    "context",
    "context_window",
    "kv_bits",
    "backend",
    "draft",
    "adapter",
    "machines",
    "split",
)

TRAINING = TRAIN_OPTIONS.only("full", "rank", "on", "layers", "batch", "max_tokens").under(
    headings.TRAINING
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
    train: Annotated[
        bool,
        Option(
            "--train",
            help="Plan training: its memory, and the time of a step.",
            rich_help_panel=headings.TRAINING,
        ),
    ] = False,
    training: Annotated[TrainOptions, TRAINING],
    json: options.Json = False,
) -> None:
    """Show how a model would run in a memory budget, even before it is downloaded.

    With --train, how it would be trained: the same options as edgellm train has.
    """
    if not train and training != TrainOptions():
        raise ConfigError(
            "options of a training run say nothing of a model that only answers",
            hint="add --train, or leave them out",
        )
    require_backend()
    from edgellm.console.tables.cluster_table import show_cluster
    from edgellm.console.tables.plan_table import show_plan
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
    if settings.machines is not None and target != TargetMachine():
        raise ConfigError(
            "several machines are measured, not described",
            hint="leave out --machines, or --sim-ram and --sim-disk",
        )
    if settings.machines is not None and not train:
        from edgellm.distributed.choice import forecast_cluster

        cluster = {"model": model, **forecast_cluster(checkpoint, settings).as_dict()}
        if json:
            terminal.write_json(cluster)
        else:
            show_cluster(cluster)
        return
    if train:
        facts = _training_facts(checkpoint, settings, target, training, here=downloaded)
    else:
        facts = forecast(checkpoint, settings, target, here=downloaded).as_dict()
    facts["busy"] = describe_load()
    if json:
        terminal.write_json({"model": model, **facts})
    elif train and settings.machines is not None:
        show_together_plan(facts, name=model)
    elif train:
        show_training_plan(facts, name=model)
    else:
        show_plan(facts, name=model, measured=target == TargetMachine())


def _training_facts(
    checkpoint: AnyCheckpoint,
    settings: LoadSettings,
    target: TargetMachine,
    training: TrainOptions,
    *,
    here: bool,
) -> dict[str, Any]:
    """Return the plan of a training run, of whose data the lengths are not known."""
    from edgellm.checkpoint.checkpoint import Checkpoint
    from edgellm.training.forecast.together_forecast import forecast_together
    from edgellm.training.forecast.training_forecast import forecast_training

    of_training = LoadSettings(
        memory=settings.memory, backend=settings.backend, machines=settings.machines
    )
    if settings != of_training:
        raise ConfigError(
            "--context, --context-window, --kv-bits, --draft, --adapter, --split and --beams say "
            "nothing of training",
            hint="leave them out; --max-tokens is the length of a record",
        )
    if not isinstance(checkpoint, Checkpoint):
        raise UnsupportedModelError(
            f"{checkpoint.config.model_type} runs through mlx-lm alone, and cannot be trained here",
            hint="train a model that edgellm runs itself: edgellm info says",
        )
    lengths = [training.max_tokens] * training.batch
    if settings.machines is not None:
        return forecast_together(
            checkpoint,
            training.settings(),
            settings,
            lengths=lengths,
            asks=training.answers > 0,
        ).as_dict()
    return forecast_training(
        checkpoint,
        training.settings(),
        settings,
        target,
        lengths=lengths,
        here=here,
        asks=training.answers > 0,
    ).as_dict()
