"""Options that several commands share; their defaults and ranges are those of ``settings``.

A new setting is a field in ``settings`` and a row here; ``chat`` and ``generate`` have it then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from edgellm.cli import headings
from edgellm.cli.common.settings_options import SettingsOptions, option
from edgellm.cli.common.values import models, one_of
from edgellm.settings import LoadSettings, Sampling

Model = Annotated[
    str,
    Argument(
        metavar="MODEL",
        help="A folder, a Hub id (OWNER/NAME, or OWNER/NAME:Q4_K_M for a GGUF file), "
        "or the name of the bundled model.",
        rich_help_panel=headings.MODEL,
        autocompletion=models,
    ),
]
System = Annotated[
    str | None,
    Option(
        metavar="TEXT",
        help="The system message of the conversation.",
        rich_help_panel=headings.PROMPT,
    ),
]
Think = Annotated[
    bool | None,
    Option(
        "--think/--no-think",
        help="Switch thinking before the answer on or off; default: as the chat template has it.",
        rich_help_panel=headings.PROMPT,
    ),
]
TemplateVariables = Annotated[
    list[str] | None,
    Option(
        "--template-variable",
        metavar="NAME=VALUE",
        help="A variable of the chat template, JSON or a text; may be given several times.",
        rich_help_panel=headings.PROMPT,
    ),
]
Destination = Annotated[
    Path,
    Argument(metavar="DEST", help="The model folder to create.", rich_help_panel=headings.MODEL),
]
GroupSize = Annotated[
    int | None,
    Option(
        metavar="32|64|128",
        help="Weights that share a scale.",
        rich_help_panel=headings.QUANTIZATION,
        autocompletion=one_of("32|64|128"),
    ),
]
Force = Annotated[
    bool,
    Option(
        "--force", help="Replace a model that is already there.", rich_help_panel=headings.OUTPUT
    ),
]
PrivateAddress = Annotated[
    str,
    Option(
        metavar="ADDRESS",
        help="Private address of this machine to listen on, and no other.",
        rich_help_panel=headings.SERVER,
    ),
]
Port = Annotated[
    int,
    Option(
        metavar="N",
        help="Port to listen on; 0 takes a free one.",
        rich_help_panel=headings.SERVER,
    ),
]
Json = Annotated[
    bool, Option("--json", help="Print one JSON document.", rich_help_panel=headings.OUTPUT)
]

LOAD_OPTIONS = SettingsOptions(
    LoadSettings,
    {
        "memory": option(
            str | None,
            "SIZE|PERCENT|auto",
            "Maximum memory for weights, KV cache and activations: 4GB, 1.5GiB, 60%; "
            "default: auto, which takes what is free.",
            heading=headings.MEMORY,
        ),
        "context": option(
            int | None,
            "N",
            "Tokens that the KV cache has room for; default: what is needed, "
            "or what a quarter of the memory holds (paged: an eighth).",
            heading=headings.MEMORY,
        ),
        "context_window": option(
            int | None,
            "N",
            "Sliding window: attention sees this many tokens; older ones are forgotten "
            "and their memory is reused.",
            heading=headings.MEMORY,
        ),
        "kv_bits": option(
            int | None,
            "32|16|8|4",
            "Bits per number of the KV cache; default: 16, without the CPU kernels as computed.",
            heading=headings.MEMORY,
        ),
        "prompt_cache": option(
            bool,
            None,
            "Keep the prefix cache on disk: prompts that begin alike are not computed again.",
            "--cache/--no-cache",
            heading=headings.MEMORY,
        ),
        "threads": option(
            int | None,
            "N",
            "CPU threads; default: chosen for the machine.",
            heading=headings.SPEED,
        ),
        "backend": option(
            str,
            "auto|mlx",
            "Compute backend: mlx uses MLX's kernels even where edgellm has its own.",
            heading=headings.SPEED,
        ),
        "activations": option(
            str,
            "auto|int8|float",
            "Number type of the CPU kernels' activations.",
            heading=headings.SPEED,
        ),
        "speculate": option(
            str,
            "auto|ngram|off",
            "Speculative decoding: draft tokens, and verify several in one pass; "
            "answers stay the same.",
            heading=headings.SPEED,
        ),
        "draft": option(
            str | None,
            "MODEL",
            "The draft model of speculative decoding: a smaller one with the same tokenizer; "
            "it stays in memory.",
            heading=headings.SPEED,
            values=models,
        ),
        "adapter": option(
            str | None,
            "FOLDER",
            "A LoRA or DoRA adapter (PEFT, mlx-lm) that runs beside the model's weights, unmerged.",
            heading=headings.MODEL,
        ),
        "machines": option(
            str | None,
            "HOSTS",
            "Compute on all machines of a file, this one first (edgellm cluster).",
            heading=headings.MEMORY,
        ),
        "split": option(
            str,
            "auto|windows|rows",
            "What each machine has: layers that take turns, rows of every matrix, so that all "
            "compute at once, or whichever is faster; answers stay the same.",
            heading=headings.MEMORY,
        ),
        "machine_wait": option(
            float,
            "SECONDS",
            "How long since a machine was last heard a text waits for it, and then goes on.",
            heading=headings.MEMORY,
        ),
    },
)

SAMPLING_OPTIONS = SettingsOptions(
    Sampling,
    {
        "max_tokens": option(int, "N", "Maximum number of new tokens.", heading=headings.SAMPLING),
        "temperature": option(
            float,
            "X",
            "0 always takes the most likely token; higher values make texts more varied.",
            heading=headings.SAMPLING,
        ),
        "top_p": option(
            float,
            "X",
            "Keep the most likely tokens whose probabilities add up to this.",
            heading=headings.SAMPLING,
        ),
        "top_k": option(
            int, "N", "Keep the N most likely tokens; 0 keeps all.", heading=headings.SAMPLING
        ),
        "min_p": option(
            float,
            "X",
            "Drop tokens less likely than this fraction of the most likely one.",
            heading=headings.SAMPLING,
        ),
        "repetition_penalty": option(
            float,
            "X",
            "Above 1, tokens that have already occurred become less likely.",
            heading=headings.SAMPLING,
        ),
        "presence_penalty": option(
            float,
            "X",
            "Subtracted from the logits of tokens that the answer already has; -2 to 2.",
            heading=headings.SAMPLING,
        ),
        "frequency_penalty": option(
            float,
            "X",
            "The same, as many times as the answer has the token; -2 to 2.",
            heading=headings.SAMPLING,
        ),
        "beams": option(
            int, "N", "Sequences of a beam search; 1 switches it off.", heading=headings.SAMPLING
        ),
        "seed": option(
            int | None, "N", "The same seed draws the same text again.", heading=headings.SAMPLING
        ),
        "stop": option(
            list[str] | None,
            "TEXT",
            "A text that ends the answer; may be given several times.",
            heading=headings.SAMPLING,
        ),
    },
    # Typer's way to say that an option of several values was left out; the class has a tuple.
    defaults={"stop": None},
)
