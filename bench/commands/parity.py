"""``edgellm bench parity``: whether models and backends agree."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from edgellm.bench import command_options as common
from edgellm.bench.records.backend_names import OWN
from edgellm.bench.records.collect import exit_code
from edgellm.bench.tables.columns import PARITY_COLUMNS
from edgellm.files.bounded import read_given_text

if TYPE_CHECKING:
    from edgellm.bench.records.kinds import ParityRecord

MAX_LETTERS = 16 << 20
"""Of a text or prompt."""


def parity(
    models: Annotated[
        list[str],
        Argument(metavar="MODEL ...", help="Folders, Hub ids, the name of the bundled model."),
    ],
    *,
    backend: Annotated[
        str,
        Option(
            metavar="NAME,...", help="Default: edgellm for several models, edgellm and cpu for one."
        ),
    ] = "",
    text: Annotated[
        Path | None,
        Option(metavar="FILE", help="The text to compare on; default: a short one of ours."),
    ] = None,
    tokens: Annotated[int, Option(metavar="N", min=17, help="Maximum tokens of the text.")] = 256,
    window: Annotated[
        int, Option(metavar="N", min=17, help="Tokens that are computed together.")
    ] = 512,
    new_tokens: Annotated[
        int, Option(metavar="N", min=1, help="Tokens to generate greedily.")
    ] = 32,
    threads: common.Threads = None,
    dtype: common.DType = None,
    activations: common.Activations = "auto",
    kv_bits: common.KVBits = None,
    timeout: common.Timeout = 900.0,
    output: common.Outputs = None,
    json: common.Json = False,
    wide: common.Wide = False,
) -> int:
    """Compare the probabilities of models, or of one model in several backends, with the first."""
    from edgellm.bench.backends.registry import RuntimeSettings
    from edgellm.bench.evaluation.parity import ParitySettings, compare, sides_of
    from edgellm.bench.evaluation.passage import PASSAGE

    backends = common.split_backends(backend) or [OWN]
    if not backend and len(models) == 1:
        backends = [OWN, "cpu"]  # a model alone is compared with itself
    passage = PASSAGE
    if text:
        passage = _read(text)
    settings = ParitySettings(
        text=passage,
        tokens=tokens,
        window=window,
        new_tokens=new_tokens,
        timeout=timeout,
        runtime=RuntimeSettings(
            threads=threads, dtype=dtype, activations=activations, kv_bits=kv_bits
        ),
    )
    sides = sides_of(models, backends)
    records, stopped = common.collect_records(partial(compare, sides, settings), output)
    sentences = describe_texts(records) if records else ()
    common.print_records(records, PARITY_COLUMNS, json=json, wide=wide, sentences=sentences)
    return exit_code(records, stopped=stopped)


def describe_texts(records: Sequence[ParityRecord]) -> list[str]:
    """Return which arithmetic ran, and what each side wrote, as lines; the reference first."""
    first = records[0]
    reference = f"compared with {first.reference_backend}, {first.reference_model}"
    if first.reference_bits:
        reference += f", {first.reference_bits} bits"
    lines = [f"{reference}: {first.reference_arithmetic}"]
    # records of failed sides lack the reference's text
    texts = [record.reference_text for record in records if record.reference_text is not None]
    lines += [f"  {_one_line(text)}" for text in texts[:1]]
    for record in records:
        if record.error is not None or record.text is None:
            continue
        lines.append(f"{record.backend}, {record.model}: {record.arithmetic}")
        if record.text_equal:
            lines.append("  the same")
        else:
            text = _one_line(record.text)
            lines.append(f"  the same for {record.equal_tokens} tokens, then: {text}")
    return lines


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _read(path: Path) -> str:
    return read_given_text(path, MAX_LETTERS, hint="name a text file")
