"""Options that several commands share; their defaults and ranges are those of ``settings``.

A new setting is a field in ``settings.py`` and a row here; ``chat`` and ``generate`` have it then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgellm.cli.common.settings_options import SettingsOptions
from edgellm.settings import LoadSettings, Sampling

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A folder, a Hub id, or the name of the bundled model."),
]
System = Annotated[
    str | None, typer.Option(metavar="TEXT", help="The system message of the conversation.")
]
Destination = Annotated[Path, typer.Argument(metavar="DEST", help="The model folder to be made.")]
GroupSize = Annotated[
    int | None, typer.Option(metavar="32|64|128", help="Weights that share a scale.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a model that is already there.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

LOAD_OPTIONS = SettingsOptions(
    LoadSettings,
    {
        "memory": Annotated[
            str | None,
            typer.Option(
                metavar="SIZE|PERCENT|auto",
                help="What weights, KV cache and activations may take: 4GB, 1.5GiB, 60%; "
                "left out or auto: what is free.",
            ),
        ],
        "context": Annotated[
            int | None,
            typer.Option(
                metavar="N",
                help="Tokens that the KV cache has room for; left out: what is needed, "
                "or what a quarter of the memory holds.",
            ),
        ],
        "context_window": Annotated[
            int | None,
            typer.Option(
                metavar="N",
                help="Tokens that attention looks back over; older ones are forgotten "
                "and their memory is used again.",
            ),
        ],
        "kv_bits": Annotated[
            int | None,
            typer.Option(
                metavar="16|8|4",
                help="Bits of the KV cache's numbers; left out: those of the arithmetic.",
            ),
        ],
        "threads": Annotated[
            int | None,
            typer.Option(
                metavar="N",
                help="Processor threads for arithmetic; left out: as the machine has.",
            ),
        ],
        "backend": Annotated[str, typer.Option(metavar="auto|mlx", help="What computes.")],
        "activations": Annotated[
            str, typer.Option(metavar="auto|int8|float", help="How the CPU kernels compute.")
        ],
        "speculate": Annotated[
            str,
            typer.Option(
                metavar="auto|ngram|off",
                help="Guess tokens ahead and verify several in a pass over the weights; "
                "answers stay what they would be.",
            ),
        ],
        "draft": Annotated[
            str | None,
            typer.Option(
                metavar="MODEL",
                help="A smaller model with the same tokenizer that guesses; it stays in memory.",
            ),
        ],
        "prompt_cache": Annotated[
            bool,
            typer.Option(
                "--cache/--no-cache",
                help="Keep the KV caches of prompts on disk: what begins alike is not "
                "computed again.",
            ),
        ],
    },
)

SAMPLING_OPTIONS = SettingsOptions(
    Sampling,
    {
        "max_tokens": Annotated[int, typer.Option(metavar="N", help="New tokens at the most.")],
        "temperature": Annotated[
            float,
            typer.Option(
                metavar="X", help="0 takes the likeliest token; more makes texts more varied."
            ),
        ],
        "top_p": Annotated[
            float,
            typer.Option(
                metavar="X", help="Keep the likeliest tokens whose probabilities reach this sum."
            ),
        ],
        "top_k": Annotated[
            int, typer.Option(metavar="N", help="Keep the N likeliest tokens; 0 keeps all.")
        ],
        "min_p": Annotated[
            float,
            typer.Option(
                metavar="X", help="Drop tokens less likely than this share of the likeliest."
            ),
        ],
        "repetition_penalty": Annotated[
            float,
            typer.Option(
                metavar="X", help="Above 1, tokens that have occurred become less likely."
            ),
        ],
        "beams": Annotated[
            int, typer.Option(metavar="N", help="Sequences of a beam search; 1 is none.")
        ],
        "seed": Annotated[
            int | None, typer.Option(metavar="N", help="The same seed draws the same text again.")
        ],
        "stop": Annotated[
            list[str] | None,
            typer.Option(
                metavar="TEXT", help="A text that ends the answer; may be given several times."
            ),
        ],
    },
    # Typer's way to say that an option of several values was left out; the class has a tuple.
    defaults={"stop": None},
)
