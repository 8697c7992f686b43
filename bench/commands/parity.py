"""The command that says whether models and backends agree: ``edgellm bench parity``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.bench.commands.disk import Json
from edgellm.bench.commands.queries import Outputs
from edgellm.bench.records.collect import collect, exit_code
from edgellm.bench.records.text_tables import Column
from edgellm.errors import ConfigError

if TYPE_CHECKING:
    from edgellm.bench.evaluation.parity import ParityRecord


def parity(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL ...", help="Folders, Hub ids, the name of the bundled model."
        ),
    ],
    *,
    backend: Annotated[
        str,
        typer.Option(
            metavar="NAME,...", help="Left out: mlx for several models, mlx and cpu for one."
        ),
    ] = "",
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A text to be led through; left out: our own."),
    ] = None,
    tokens: Annotated[
        int, typer.Option(metavar="N", min=17, help="Tokens of the text at the most.")
    ] = 256,
    window: Annotated[
        int, typer.Option(metavar="N", min=17, help="Tokens that are led through together.")
    ] = 512,
    new_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Tokens of the greedy texts.")
    ] = 32,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processor threads for arithmetic.")
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE", help="Of activations: float32, bfloat16, float16; left out: the best."
        ),
    ] = None,
    activations: Annotated[
        str, typer.Option(metavar="KIND", help="Of our own CPU kernels: auto, int8, float.")
    ] = "auto",
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, help="What says nothing for so long has failed."),
    ] = 900.0,
    output: Outputs = None,
    json: Json = False,
) -> int:
    """Compare what models, or one model in several backends, hold likely: each with the first."""
    from edgellm.bench.backends.registry import RuntimeSettings
    from edgellm.bench.evaluation.parity import ParitySettings, compare, sides_of
    from edgellm.bench.evaluation.passage import PASSAGE
    from edgellm.bench.records.text_tables import as_json, as_table
    from edgellm.bench.report.result_files import ResultFile
    from edgellm.bench.worker.status_line import StatusLine

    names = [name.strip() for name in backend.split(",") if name.strip()] or (
        ["mlx"] if len(models) > 1 else ["mlx", "cpu"]
    )
    sides = sides_of(models, names)
    settings = ParitySettings(
        text=_read(text) if text else PASSAGE,
        tokens=tokens,
        window=window,
        new_tokens=new_tokens,
        timeout=timeout,
        runtime=RuntimeSettings(threads=threads, dtype=dtype, activations=activations),
    )
    outputs = [ResultFile(path) for path in output or ()]
    with StatusLine() as status:
        records, stopped = collect(
            compare(sides, settings, progress=status.show), outputs, status.note
        )
    if json:
        typer.echo(as_json(records))
    elif records:
        typer.echo(as_table(records, COLUMNS))
        typer.echo("\n" + "\n".join(side_by_side(records)))
    return exit_code(records, stopped=stopped)


COLUMNS: Mapping[str, Column] = {
    "model": ("model", str),
    "backend": ("backend", str),
    "bits": ("bits", str),
    "tokens": ("tokens", str),
    "logits differ by": ("max_logit_difference", lambda value: f"{value:.2g}"),
    "KL": ("kl", lambda value: f"{value:.2g}"),
    "same first": ("top1_agreement", lambda value: f"{100 * value:.1f}%"),
    "perplexity": ("perplexity", lambda value: f"{value:.3f}"),
    "change": ("perplexity_change", lambda value: f"{100 * value:+.2f}%"),
    "same text": ("text_equal", lambda value: "yes" if value else "no"),
}


def side_by_side(records: Sequence[ParityRecord]) -> list[str]:
    """Which arithmetic ran, and what each said by itself; the reference first."""
    first = records[0]
    bits = f", {first.reference_bits} bits" if first.reference_bits else ""
    lines = [
        f"compared with {first.reference_backend}, {first.reference_model}{bits}: {first.reference_arithmetic}"
    ]
    known = next(
        (record.reference_text for record in records if record.reference_text is not None), None
    )
    lines += [f"  {_line(known)}"] if known is not None else []
    for record in records:
        if record.error is None and record.text is not None:
            lines.append(f"{record.backend}, {record.model}: {record.arithmetic}")
            same = (
                "the same"
                if record.text_equal
                else f"the same for {record.equal_tokens} tokens, then: {_line(record.text)}"
            )
            lines.append(f"  {same}")
    return lines


def _line(text: str) -> str:
    return " ".join(text.split())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8") from error
