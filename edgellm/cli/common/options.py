"""The options that commands share; their defaults and ranges are those of ``config``."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="A folder, a Hub id, or the name of the bundled model."),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE|PERCENT|auto",
        help="What weights, KV cache and activations may take: 4GB, 1.5GiB, 60%; left out or auto: what is free.",
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Tokens that the KV cache has room for; left out: what is needed, or what a quarter of the memory holds.",
    ),
]
ContextWindow = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Tokens that attention looks back over; older ones are forgotten and their memory is used again.",
    ),
]
KvBits = Annotated[
    int | None,
    typer.Option(
        "--kv-bits",
        metavar="16|8|4",
        help="Bits of the KV cache's numbers; left out: those of the arithmetic.",
    ),
]
Cache = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache",
        help="Keep the KV caches of prompts on disk: what begins alike is not computed again.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Processor threads for arithmetic; left out: as the machine has."
    ),
]
Backend = Annotated[str, typer.Option(metavar="auto|mlx", help="What computes.")]
Speculate = Annotated[
    str,
    typer.Option(
        metavar="auto|ngram|off",
        help="Guess tokens ahead and verify several in a pass over the weights; answers stay what they would be.",
    ),
]
Draft = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="A smaller model with the same tokenizer that guesses; it stays in memory.",
    ),
]
Activations = Annotated[
    str, typer.Option(metavar="auto|int8|float", help="How the CPU kernels compute.")
]
MaxTokens = Annotated[int, typer.Option(metavar="N", help="New tokens at the most.")]
Temperature = Annotated[
    float,
    typer.Option(metavar="X", help="0 takes the likeliest token; more makes texts more varied."),
]
TopP = Annotated[
    float,
    typer.Option(metavar="X", help="Keep the likeliest tokens whose probabilities reach this sum."),
]
TopK = Annotated[int, typer.Option(metavar="N", help="Keep the N likeliest tokens; 0 keeps all.")]
MinP = Annotated[
    float,
    typer.Option(metavar="X", help="Drop tokens less likely than this share of the likeliest."),
]
RepetitionPenalty = Annotated[
    float,
    typer.Option(metavar="X", help="Above 1, tokens that have occurred become less likely."),
]
Seed = Annotated[
    int | None, typer.Option(metavar="N", help="The same seed draws the same text again.")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="A text that ends the answer; may be given several times."),
]
System = Annotated[
    str | None, typer.Option(metavar="TEXT", help="The system message of the conversation.")
]
PromptFile = Annotated[
    str | None,
    typer.Option(
        "--prompt-file",
        metavar="FILE",
        help="Continue each line of a file, each told by its number; - reads standard input.",
    ),
]
Batch = Annotated[
    int,
    typer.Option(
        "--batch",
        metavar="N",
        help="With --prompt-file: lines that are continued side by side at the most.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
