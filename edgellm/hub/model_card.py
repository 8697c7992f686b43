"""The page that goes with a model to the Hub: what it was made from, how, and how to use it."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from edgellm.checkpoint.quantization import Quantization

if TYPE_CHECKING:
    from edgellm.converters import ConversionReport

CARD = "README.md"


def model_card(
    report: ConversionReport, repository: str, *, base: str | None, settings: str
) -> str:
    """Markdown with the metadata that the Hub reads.

    Args:
        report: what the conversion has made.
        repository: where it goes, ``owner/name``.
        base: the Hub repository that was converted; None: something on this machine, whose path is
            not told.
        settings: the options of the command that made it.
    """
    head = ["library_name: mlx", "pipeline_tag: text-generation", "tags:", "- mlx", "- edgellm"]
    if base:
        head += [
            f"base_model: {base}",
            "base_model_relation: quantized"
            if report.quantization
            else "base_model_relation: finetune",
        ]
    made = f"[{base}](https://huggingface.co/{base})" if base else "a model on its maker's machine"
    command = " ".join(filter(None, ["edgellm convert", base or "SOURCE", "DEST", settings]))
    lines = [
        "---",
        *head,
        "---",
        "",
        f"# {repository.partition('/')[2]}",
        "",
        f"Made from {made} by edgellm {metadata.version('edgellm')}:",
        "",
        "```bash",
        command,
        "```",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _facts(report)),
        "",
        "## Use",
        "",
        "```bash",
        f"edgellm chat {repository}",
        "```",
        "",
        "The folder is also one of mlx-lm's:",
        "",
        "```bash",
        f'mlx_lm.generate --model {repository} --prompt "Once upon a time"',
        "```",
        "",
    ]
    return "\n".join(lines)


def _facts(report: ConversionReport) -> list[tuple[str, str]]:
    facts = [("weights", f"{report.weight_bytes / 1e9:.2f} GB")]
    form = report.quantization
    if form is None:
        facts.append(("type", report.dtype))
        return facts
    facts.append(("most matrices", _said(form)))
    for other in sorted(
        {item for item in report.exceptions.values() if item is not None},
        key=lambda item: item.bits,
    ):
        paths = sum(item == other for item in report.exceptions.values())
        facts.append((f"{paths} {'matrix' if paths == 1 else 'matrices'}", _said(other)))
    facts.append(("scales and norms", report.dtype))
    if report.merged:
        facts.append(("changed by an adapter", f"{report.merged} tensors"))
    if report.errors:
        facts.append(("largest relative error of a matrix", f"{max(report.errors.values()):.4f}"))
    return facts


def _said(form: Quantization) -> str:
    mode = "" if form.mode == "affine" else f" ({form.mode})"
    return f"{form.bits} bits in groups of {form.group_size}{mode}"
