"""The model card of a conversion: what it was made from, how, and how to use it."""

from __future__ import annotations

from collections import Counter
from importlib import metadata
from typing import TYPE_CHECKING

from edgellm.checkpoint.quantization import Quantization
from edgellm.hub.names import parse_hub_name

if TYPE_CHECKING:
    from edgellm.converters import ConversionReport

CARD = "README.md"


def model_card(
    report: ConversionReport, repository: str, *, base: str | None, settings: str
) -> str:
    """Return a model card: Markdown with the metadata that the Hub reads.

    Args:
        report: what the conversion has made.
        repository: where it goes, ``owner/name``.
        base: the model on the Hub that was converted, as it was named; None: something on this
            machine, whose path is not told.
        settings: the options of the command that made it.
    """
    head = ["library_name: mlx", "pipeline_tag: text-generation", "tags:", "- mlx", "- edgellm"]
    source = "a model on its maker's machine"
    name = parse_hub_name(base or "")
    if base and name:
        source = f"[{base}](https://huggingface.co/{name.repository})"
        relation = "quantized" if report.quantization else "finetune"
        head += [f"base_model: {name.repository}", f"base_model_relation: {relation}"]
    command = " ".join(filter(None, ["edgellm convert", base or "SOURCE", "DEST", settings]))
    lines = [
        "---",
        *head,
        "---",
        "",
        f"# {repository.partition('/')[2]}",
        "",
        f"Made from {source} by edgellm {metadata.version('edgellm')}:",
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
        "mlx-lm opens the folder, too:",
        "",
        "```bash",
        f'mlx_lm.generate --model {repository} --prompt "Once upon a time"',
        "```",
        "",
    ]
    return "\n".join(lines)


def _facts(report: ConversionReport) -> list[tuple[str, str]]:
    facts = [("weights", f"{report.weight_bytes / 1e9:.2f} GB")]
    if report.quantization is None:
        facts.append(("type", report.dtype))
        return facts
    facts.append(("most matrices", _quantization_text(report.quantization)))
    exceptions = Counter(form for form in report.exceptions.values() if form is not None)
    for form, count in sorted(exceptions.items(), key=lambda item: item[0].bits):
        noun = "matrix" if count == 1 else "matrices"
        facts.append((f"{count} {noun}", _quantization_text(form)))
    facts.append(("scales and norms", report.dtype))
    if report.merged:
        facts.append(("changed by an adapter", f"{report.merged} tensors"))
    if report.errors:
        facts.append(("largest relative error of a matrix", f"{max(report.errors.values()):.4f}"))
    return facts


def _quantization_text(form: Quantization) -> str:
    text = f"{form.bits} bits in groups of {form.group_size}"
    if form.mode != "affine":
        text += f" ({form.mode})"
    return text
