"""The commands that say what there is: ``plan``, ``info`` and ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgellm.cli.common import options
from edgellm.console import terminal
from edgellm.device.require_mlx import require_backend
from edgellm.errors import ConfigError
from edgellm.settings import LoadSettings, parse_size


def plan(
    model: options.Model,
    *,
    memory: options.Memory = None,
    context: options.Context = None,
    context_window: options.ContextWindow = None,
    kv_bits: options.KvBits = None,
    draft: options.Draft = None,
    sim_ram: Annotated[
        str | None, typer.Option(metavar="SIZE", help="For a machine with so much memory: 8GB.")
    ] = None,
    sim_disk: Annotated[
        str | None, typer.Option(metavar="RATE", help="For a machine with such a disk: 3GB/s.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Show what a model would do with a budget of memory, also before it is downloaded."""
    settings = LoadSettings(
        memory=memory, context=context, context_window=context_window, kv_bits=kv_bits, draft=draft
    )
    require_backend()
    from edgellm.console import tables
    from edgellm.diagnostics.facts import inspect_model
    from edgellm.runtime.forecast import TargetMachine, forecast

    elsewhere = TargetMachine(
        memory=parse_size(sim_ram) if sim_ram else None,
        disk=parse_size(sim_disk.removesuffix("/s")) if sim_disk else None,
    )
    checkpoint, here = inspect_model(model)
    found = forecast(checkpoint, settings, elsewhere, here=here).as_dict()
    if json:
        terminal.write_json({"model": model, **found})
    else:
        tables.show_plan(found, name=model, measured=elsewhere == TargetMachine())


def info(model: options.Model, *, json: options.Json = False) -> None:
    """Show the shape of a model, and what its parts weigh."""
    require_backend()
    from edgellm.console import tables
    from edgellm.diagnostics.facts import inspect_model, model_facts
    from edgellm.tokenizer import Tokenizer

    checkpoint, here = inspect_model(model)
    tokenizer = (
        Tokenizer.from_folder(checkpoint.folder.path, vocab_size=checkpoint.config.vocab_size)
        if here
        else None
    )
    facts = model_facts(checkpoint, tokenizer)
    if json:
        terminal.write_json({"model": model, **facts})
    else:
        tables.show_model(facts)


def verify(model: options.Model, *, json: options.Json = False) -> int:
    """Check a model: files, index, shapes, checksums, values, tokenizer, and one pass through it."""
    require_backend()
    from edgellm.console.diagnosis_view import show_verification
    from edgellm.console.progress import verification
    from edgellm.diagnostics.verify import verify as examine_folder
    from edgellm.hub.resolve import locate

    folder = locate(model)
    with verification() as progress:
        found = examine_folder(folder, progress)
    if json:
        terminal.write_json({"model": model, **found.as_dict()})
    else:
        show_verification(found)
    return 0 if found.passed else 1


def doctor(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]", help="A folder on the disk to be measured; left out: this one."
        ),
    ] = None,
    *,
    json: options.Json = False,
) -> int:
    """Show what this machine is and how fast, and try whether models run right on it."""
    from edgellm.console.diagnosis_view import show_diagnosis
    from edgellm.console.progress import trying
    from edgellm.diagnostics.doctor import examine

    place = folder or Path()
    if not place.is_dir():
        raise ConfigError(f"there is no folder {place}")
    with trying() as begin:
        found = examine(place, begin)
    if json:
        terminal.write_json(found.as_dict())
    else:
        show_diagnosis(found)
    return 0 if found.passed else 1
