"""Options that several commands share; their defaults and ranges are those of ``settings``.

A new setting is a field in ``settings.py`` and a row here; ``chat`` and ``generate`` have it then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from edgellm.cli.common.settings_options import SettingsOptions, option
from edgellm.settings import LoadSettings, Sampling

Model = Annotated[
    str,
    Argument(
        metavar="MODEL",
        help="A folder, a Hub id (OWNER/NAME, or OWNER/NAME:Q4_K_M for a GGUF file), "
        "or the name of the bundled model.",
    ),
]
System = Annotated[
    str | None, Option(metavar="TEXT", help="The system message of the conversation.")
]
Think = Annotated[
    bool | None,
    Option(
        "--think/--no-think",
        help="Switch thinking before the answer on or off; default: as the chat template has it.",
    ),
]
TemplateVariables = Annotated[
    list[str] | None,
    Option(
        "--template-variable",
        metavar="NAME=VALUE",
        help="A variable of the chat template, JSON or a text; may be given several times.",
    ),
]
Destination = Annotated[Path, Argument(metavar="DEST", help="The model folder to be made.")]
GroupSize = Annotated[int | None, Option(metavar="32|64|128", help="Weights that share a scale.")]
Force = Annotated[bool, Option("--force", help="Replace a model that is already there.")]
Json = Annotated[bool, Option("--json", help="Print one JSON document.")]

LOAD_OPTIONS = SettingsOptions(
    LoadSettings,
    {
        "memory": option(
            str | None,
            "SIZE|PERCENT|auto",
            "What weights, KV cache and activations may take: 4GB, 1.5GiB, 60%; "
            "default or auto: what is free.",
        ),
        "context": option(
            int | None,
            "N",
            "Tokens that the KV cache has room for; default: what is needed, "
            "or what a quarter of the memory holds.",
        ),
        "context_window": option(
            int | None,
            "N",
            "Tokens that attention looks back over; older ones are forgotten "
            "and their memory is used again.",
        ),
        "kv_bits": option(
            int | None,
            "16|8|4",
            "Bits of the KV cache's numbers; default: those of the arithmetic.",
        ),
        "threads": option(
            int | None, "N", "Processor threads for arithmetic; default: as the machine has."
        ),
        "backend": option(str, "auto|mlx", "What computes."),
        "activations": option(str, "auto|int8|float", "How the CPU kernels compute."),
        "speculate": option(
            str,
            "auto|ngram|off",
            "Draft tokens ahead and verify several in a pass over the weights; "
            "answers stay what they would be.",
        ),
        "draft": option(
            str | None,
            "MODEL",
            "A smaller model with the same tokenizer that drafts tokens; it stays in memory.",
        ),
        "prompt_cache": option(
            bool,
            None,
            "Keep the KV caches of prompts on disk: what begins alike is not computed again.",
            "--cache/--no-cache",
        ),
    },
)

SAMPLING_OPTIONS = SettingsOptions(
    Sampling,
    {
        "max_tokens": option(int, "N", "New tokens at most."),
        "temperature": option(
            float, "X", "0 takes the likeliest token; more makes texts more varied."
        ),
        "top_p": option(
            float, "X", "Keep the likeliest tokens whose probabilities reach this sum."
        ),
        "top_k": option(int, "N", "Keep the N likeliest tokens; 0 keeps all."),
        "min_p": option(float, "X", "Drop tokens less likely than this share of the likeliest."),
        "repetition_penalty": option(
            float, "X", "Above 1, tokens that have occurred become less likely."
        ),
        "beams": option(int, "N", "Sequences of a beam search; 1 is none."),
        "seed": option(int | None, "N", "The same seed draws the same text again."),
        "stop": option(
            list[str] | None, "TEXT", "A text that ends the answer; may be given several times."
        ),
    },
    # Typer's way to say that an option of several values was left out; the class has a tuple.
    defaults={"stop": None},
)
