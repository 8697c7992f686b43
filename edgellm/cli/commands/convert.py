"""``edgellm convert``: a model folder of any model, and its upload to the Hub."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common import options
from edgellm.cli.common.values import one_of
from edgellm.console import terminal
from edgellm.console.units import seconds
from edgellm.device.require_mlx import require_backend

if TYPE_CHECKING:
    from edgellm.converters import ConversionReport


def convert(
    source: Annotated[
        str,
        Argument(
            metavar="SOURCE",
            help="A folder, file, Hub id, or GGUF file on the Hub, in any format edgellm reads.",
        ),
    ],
    destination: options.Destination,
    *,
    bits: Annotated[
        int | None,
        Option(
            metavar="1|2|3|4|5|6|8|16",
            help="Bits per weight; default: 4, or as stored for a quantized source.",
            autocompletion=one_of("1|2|3|4|5|6|8|16"),
            rich_help_panel=headings.QUANTIZATION,
        ),
    ] = None,
    group_size: options.GroupSize = None,
    dtype: Annotated[
        str | None,
        Option(
            metavar="float16|bfloat16|float32",
            help="Type of what is not quantized; default: as in the source.",
            autocompletion=one_of("float16|bfloat16|float32"),
            rich_help_panel=headings.QUANTIZATION,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        Option(
            metavar="uniform|mixed",
            help="mixed: more bits for the matrices that need them, as measured.",
            autocompletion=one_of("uniform|mixed"),
            rich_help_panel=headings.QUANTIZATION,
        ),
    ] = None,
    average_bits: Annotated[
        float | None,
        Option(
            metavar="X",
            help="Average bits per weight when mixed, scales counted; default: 4.5.",
            rich_help_panel=headings.QUANTIZATION,
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="A text for gptq, and for a mixed recipe, which has a short one of its own.",
            rich_help_panel=headings.QUANTIZATION,
        ),
    ] = None,
    method: Annotated[
        str | None,
        Option(
            metavar="nearest|gptq",
            help="gptq: as many bits, smaller error, fitted to --calibration; takes longer.",
            autocompletion=one_of("nearest|gptq"),
            rich_help_panel=headings.QUANTIZATION,
        ),
    ] = None,
    adapter: Annotated[
        Path | None,
        Option(
            metavar="PATH",
            help="A LoRA adapter to merge: PEFT's, mlx-lm's, LitGPT's or loralib's.",
            rich_help_panel=headings.MERGING,
        ),
    ] = None,
    adapter_alpha: Annotated[
        float | None,
        Option(
            metavar="X",
            help="The adapter's alpha, where its files do not say it.",
            rich_help_panel=headings.MERGING,
        ),
    ] = None,
    adapter_parts: Annotated[
        str | None,
        Option(
            metavar="q,k,v",
            help="Parts of a fused matrix that the adapter changes, where its files do not say it.",
            rich_help_panel=headings.MERGING,
        ),
    ] = None,
    add_to: Annotated[
        str | None,
        Option(
            metavar="BASE",
            help="The model that SOURCE, a difference of weights, is added to.",
            rich_help_panel=headings.MERGING,
        ),
    ] = None,
    new_rows: Annotated[
        str | None,
        Option(
            metavar="mean|zeros",
            help="What to add for tokens that only the difference has; default: mean.",
            autocompletion=one_of("mean|zeros"),
            rich_help_panel=headings.MERGING,
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        Option(
            metavar="PATH",
            help="A tokenizer's file or folder, in place of the source's own.",
            rich_help_panel=headings.MODEL,
        ),
    ] = None,
    upload: Annotated[
        str | None,
        Option(
            metavar="OWNER/NAME",
            help="Upload the result to the Hub, with a model card.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = None,
    force: options.Force = False,
    report: Annotated[
        bool,
        Option(
            "--report",
            help="Measure and list the error of each quantized matrix.",
            rich_help_panel=headings.OUTPUT,
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Convert a model into a folder that edgellm and mlx-lm open; a conversion that was stopped
    goes on.
    """
    require_backend()
    from edgellm import converters
    from edgellm.console.progress import resumable, show_converting
    from edgellm.console.tables import conversion_table
    from edgellm.diagnostics.facts import conversion_facts
    from edgellm.hub.upload import require_account

    if upload is not None:
        require_account(upload)
    begun = time.perf_counter()
    with resumable(), show_converting() as progress:
        made = converters.convert(
            source,
            destination,
            bits=bits,
            group_size=group_size,
            dtype=dtype,
            recipe=recipe,
            average_bits=average_bits,
            calibration=calibration,
            method=method,
            adapter=adapter,
            adapter_alpha=adapter_alpha,
            adapter_parts=adapter_parts and adapter_parts.split(","),
            add_to=add_to,
            new_rows=new_rows,
            tokenizer=tokenizer,
            force=force,
            report=report,
            progress=progress,
        )
    facts = conversion_facts(made)
    if upload is not None:
        named_options = {
            "bits": bits,
            "group-size": group_size,
            "dtype": dtype,
            "recipe": recipe,
            "average-bits": average_bits,
            "method": method,
            "adapter": adapter and adapter.name,
            "adapter-alpha": adapter_alpha,
            "adapter-parts": adapter_parts,
            "add-to": add_to and _public_name(add_to),
            "new-rows": new_rows,
        }
        facts["uploaded"] = _upload(made, upload, source, named_options)
    if json:
        terminal.write_json(facts)
        return
    conversion_table.show_conversion(made, listed=report)
    terminal.note(f"took {seconds(time.perf_counter() - begun)}; next: {_next_command(made.path)}")
    if upload is not None:
        terminal.note(f"uploaded: {facts['uploaded']}")


def _next_command(folder: Path) -> str:
    """Return the command that tries a new model."""
    from edgellm.chat_template.template import find_templates
    from edgellm.files.strict_json import read_json

    config = folder / "tokenizer_config.json"
    settings = {}
    if config.exists():
        settings = read_json(config)
    path = shlex.quote(str(folder))
    if find_templates(folder, settings):
        return f"edgellm chat {path}"
    return f'edgellm generate {path} --prompt "Once upon a time"'


def _upload(
    made: ConversionReport, repository: str, source: str, named_options: Mapping[str, Any]
) -> str:
    """Upload a converted model with a card that says how it was made; return its address."""
    from edgellm.hub.model_card import model_card
    from edgellm.hub.resolve import bundled_names
    from edgellm.hub.upload import upload

    given = {name: value for name, value in named_options.items() if value is not None}
    settings = " ".join(f"--{name} {value}" for name, value in given.items())
    base: str | None = source
    if _is_here(source) or source in bundled_names():
        base = None  # nothing on the Hub that the card could link
    card = model_card(made, repository, base=base, settings=settings)
    return upload(made.path, repository, card)


def _is_here(source: str) -> bool:
    """Return whether a source is a path of this machine, and no name on the Hub."""
    from edgellm.files.given_path import given_path

    return given_path(source).exists()


def _public_name(source: str) -> str:
    """Return a Hub id as it is, and of a path its end: no more of this machine is published."""
    if _is_here(source):
        return Path(source).name
    return source
