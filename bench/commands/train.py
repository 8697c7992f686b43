"""``edgellm bench train``: techniques of training in memory, time and loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Option

from edgellm.bench import command_options as common
from edgellm.bench.records.collect import exit_code
from edgellm.bench.tables.columns import training_columns, training_sentences
from edgellm.bench.training.task_settings import TaskSettings
from edgellm.cli import headings
from edgellm.cli.common.settings_options import SettingsOptions, expand_settings
from edgellm.console.terminal import note
from edgellm.setting_values import choice
from edgellm.settings import DEFAULT_MODEL, parse_budget

CHECKPOINTING = {"on": True, "off": False}

STEP_OPTIONS = SettingsOptions(
    TaskSettings,
    {
        "steps": Annotated[int, Option(metavar="N", min=1, help="Steps, the first not timed.")],
        "tokens": Annotated[int, Option(metavar="N", min=2, help="Tokens of a sequence.")],
        "batch": Annotated[int, Option(metavar="N", min=1, help="Sequences of a step.")],
        "rank": Annotated[int, Option(metavar="N", min=1, max=1024, help="Rank of each change.")],
        "rate": Annotated[float, Option(metavar="X", min=0, help="The learning rate.")],
        "seed": Annotated[
            int,
            Option(
                metavar="N",
                min=0,
                max=(1 << 31) - 1,
                help="Seed of the first numbers and the order of data.",
            ),
        ],
    },
).under(headings.TESTS)
TASK_OPTIONS = SettingsOptions(
    TaskSettings,
    {**STEP_OPTIONS.options, "threads": common.Threads, "activations": common.Activations},
)


@expand_settings
def train(
    model: common.Model = DEFAULT_MODEL,
    *,
    backend: Annotated[
        str,
        Option(
            metavar="NAME,...",
            help="One or more of edgellm, mlx-lm, peft (PEFT and torch on the processor), cuda "
            "(the same on an NVIDIA GPU); default: all that are not too slow here.",
            rich_help_panel=headings.MODEL,
        ),
    ] = "",
    technique: Annotated[
        str,
        Option(
            metavar="NAME,...",
            help="One or more of full, lora, qlora; default: all.",
            rich_help_panel=headings.TESTS,
        ),
    ] = "",
    checkpointing: Annotated[
        str,
        Option(
            metavar="on,off",
            help="Compute activations again in the backward pass; default: off, and on for one "
            "technique.",
            rich_help_panel=headings.TESTS,
        ),
    ] = "",
    accumulation: Annotated[
        str,
        Option(
            metavar=common.NUMBERS,
            help="Parts that a step is cut into; default: 1, and 4 for one technique.",
            rich_help_panel=headings.TESTS,
        ),
    ] = "",
    dtype: Annotated[
        str,
        Option(
            metavar="TYPE,...",
            help="Types of activations: float32, bfloat16, float16; default: the usual one.",
            rich_help_panel=headings.TESTS,
        ),
    ] = "",
    bits: Annotated[
        str,
        Option(
            metavar=common.NUMBERS,
            help="Bits of the model for QLoRA, made once and kept; default: as it is stored, or 4.",
            rich_help_panel=headings.TESTS,
        ),
    ] = "",
    memory: Annotated[
        str,
        Option(
            metavar="SIZE,...",
            help="Memory budgets in which edgellm pages; default: the least.",
            rich_help_panel=headings.MEMORY,
        ),
    ] = "",
    data: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Records as `edgellm train` reads them; default: a text of our own.",
            rich_help_panel=headings.TESTS,
        ),
    ] = None,
    turns: common.Turns = 2,
    task: Annotated[TaskSettings, TASK_OPTIONS],
    on: Annotated[
        str,
        Option(
            metavar="NAME,...",
            help="The matrices that are changed: q, k, v, o, gate, up, down, attention, mlp, all.",
            rich_help_panel=headings.TESTS,
        ),
    ] = "q,v",
    timeout: common.Timeout = 600.0,
    output: common.Outputs = None,
    json: common.Json = False,
    wide: common.Wide = False,
) -> int:
    """Measure what techniques of training cost in memory and time, and the loss that they reach:
    edgellm, mlx-lm and PEFT on the same tokens, in turns.
    """
    from edgellm.bench.training.measure import TrainingMeasurement, measure_training, qlora_bits
    from edgellm.bench.training.techniques import Choice, techniques_of
    from edgellm.bench.training.trainer import not_installed
    from edgellm.training.low_rank import targets_named

    backends, notes = _backends(backend)
    wanted = Choice(
        backends=backends,
        methods=_names("technique", technique, ("full", "lora", "qlora")),
        bits=common.split_numbers("bits", bits) or (qlora_bits(model),),
        dtypes=_names("dtype", dtype, ("float32", "bfloat16", "float16")),
        checkpointing=tuple(
            CHECKPOINTING[name] for name in _names("checkpointing", checkpointing, CHECKPOINTING)
        ),
        accumulation=common.split_numbers("accumulation", accumulation),
        memory=tuple(map(parse_budget, common.split_names(memory))),
    )
    settings = TrainingMeasurement(
        model=model,
        techniques=tuple(techniques_of(wanted)),
        task=replace(task, targets=targets_named(on)),
        data=data,
        turns=turns,
        timeout=timeout,
    )
    for sentence in notes:
        note(sentence)
    records, stopped = common.collect_records(partial(measure_training, settings), output)
    common.print_records(
        records,
        training_columns(records),
        json=json,
        wide=wide,
        sentences=training_sentences(records),
    )
    if records and not json:
        note(
            f"loss: nats per token of the first step's {task.batch} sequences, before and after "
            f"{task.steps} steps"
        )
    # a peer that was not asked for and is not installed is a row, and no failure
    counted = (
        records
        if backend
        else [record for record in records if not_installed(record.backend) is None]
    )
    return exit_code(counted, stopped=stopped)


def _backends(text: str) -> tuple[tuple[str, ...], list[str]]:
    """Return the libraries that are measured, and notes on those that are left out.

    Raises:
        ConfigError: there is no such library.
    """
    from edgellm.bench.training.trainer import TRAINERS, left_out, usual_trainers

    names = _names("backend", ",".join(common.split_backends(text)), TRAINERS)
    if names:
        return names, []
    return usual_trainers(), left_out()


def _names(option: str, text: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the names of a list with commas, each once. Raises ConfigError."""
    names = tuple(dict.fromkeys(common.split_names(text)))
    for name in names:
        choice(option, name, tuple(known))
    return names
