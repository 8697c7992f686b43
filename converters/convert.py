"""Make a model folder from whatever a person has: the source, what is done to it, the call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgellm.converters.added_source import MEAN, AddedSource
from edgellm.converters.calibrated.by_text import gptq_settings, quantized_by_text
from edgellm.converters.conversion import (
    ConversionReport,
    ConversionStep,
    ConvertCallback,
    convert_source,
)
from edgellm.converters.destination import destination_path
from edgellm.converters.formats import FORMATS, open_format
from edgellm.converters.given_tokenizer import GivenTokenizer
from edgellm.converters.lora.kept_change import kept_change
from edgellm.converters.lora.merged_source import MergedSource
from edgellm.converters.lora.state_dict import FILES_TELL, AdapterSettings
from edgellm.converters.mixed_bits.allocate import mix, mixed_settings
from edgellm.converters.tensors.settings import UNQUANTIZED_BITS, ConversionSettings
from edgellm.converters.tensors.source import Source
from edgellm.errors import ConfigError, FormatError, ModelNotFoundError
from edgellm.files.given_path import given_path
from edgellm.hub.download import download, find_gguf
from edgellm.hub.names import parse_hub_name
from edgellm.hub.resolve import bundled_names, locate


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    bits: int | None = None,
    group_size: int | None = None,
    dtype: str | None = None,
    recipe: str | None = None,
    average_bits: float | None = None,
    calibration: str | Path | None = None,
    method: str | None = None,
    adapter: str | Path | None = None,
    adapter_alpha: float | None = None,
    adapter_parts: Sequence[str] | None = None,
    add_to: str | Path | None = None,
    new_rows: str | None = None,
    tokenizer: str | Path | None = None,
    force: bool = False,
    report: bool = False,
    progress: ConvertCallback | None = None,
) -> ConversionReport:
    """Make a model folder from a model in any format of ``formats``, or from a Hub repository.

    Weights go through a few rows at a time. A run that was stopped, in whatever way, goes on where
    it stopped when the same call is made again, and ends in the same bytes.

    Args:
        source: a folder or file, or a Hub id (``owner/name``, and for a GGUF file
            ``owner/name:Q4_K_M`` or ``owner/name/FILE.gguf``), which is downloaded first.
        destination: the folder to be made.
        bits: 1 to 6, 8, or 16 for unquantized; None: 4, or as it is for a quantized source.
        group_size: weights a scale, 32, 64 or 128; None: 64.
        dtype: ``float16``, ``bfloat16`` or ``float32``; None: the source's.
        recipe: ``uniform``, or ``mixed``: more bits for the matrices that need them, as is measured
            on a text.
        average_bits: of a weight in a mixed recipe, scales and biases counted; None: 4.5.
        calibration: the text file that gptq quantizes by, and that a mixed recipe is measured on;
            None: for the recipe, a short text that comes along.
        method: ``nearest``: each weight by itself, as MLX does; or ``gptq``: so that the text goes
            through the model little changed, with the same size. None: ``nearest``.
        adapter: a LoRA adapter to be merged into the model: a folder of PEFT's, mlx-lm's or
            LitGPT's, or the weight file of LitGPT's or loralib's.
        adapter_alpha: the alpha of its training, where the adapter does not tell it (loralib's).
        adapter_parts: which of ``q``, ``k`` and ``v`` a change of their fused matrix is of, where
            the adapter does not tell.
        add_to: the source is a difference of weights, and this the model that it was taken from.
        new_rows: what ``add_to`` is given in place of rows that only the difference has: ``mean``
            of the others, or ``zeros``; None: ``mean``.
        tokenizer: a tokenizer's file, or a folder that has one, to be taken in place of the
            source's.
        force: replace the model that is at the destination, once the new one is whole.
        report: also measure what quantization changes, which takes about as long again as the
            conversion.
        progress: called after each piece of the source.

    Raises:
        ConfigError: a setting is out of range, or asks for what this source cannot become.
        ModelNotFoundError, DownloadError: the source is not there, or cannot be fetched.
        FormatError, ReadError, UnsupportedModelError: the source is damaged, or of another kind.
        TokenizerError, TemplateError: so is its tokenizer or chat template.
        ConversionError: the destination is taken, there is no space, or the disk refuses.
    """
    settings = ConversionSettings(bits=bits, group_size=group_size, dtype=dtype)
    by_text = gptq_settings(method, calibration, bits=bits)
    mixed = mixed_settings(recipe, average_bits, calibration, bits=bits, shared=by_text is not None)
    say = progress or (lambda _: None)
    target = destination_path(destination)
    unquantized = settings.bits == UNQUANTIZED_BITS
    opened = open_source(source, target, unquantized=unquantized)
    with_adapter, workers = None, None
    if add_to is not None:
        opened = AddedSource(opened, open_source(add_to, target), new_rows or MEAN)
    elif new_rows is not None:
        raise ConfigError("new rows are for a difference", hint="name its base with --add-to")
    if tokenizer is not None:
        opened = GivenTokenizer(opened, given_path(tokenizer))
    told = AdapterSettings(alpha=adapter_alpha, parts=adapter_parts)
    if adapter is not None:
        opened = with_adapter = MergedSource(opened, given_path(adapter), told)
        workers = 1  # which reads an adapter's factors once a matrix
    elif told != FILES_TELL:
        raise ConfigError("an alpha and parts are for an adapter", hint="name it with --adapter")
    chosen = None
    if mixed is not None:
        chosen, settings = mix(
            opened, settings, mixed, progress=lambda *step: say(ConversionStep(*step))
        )
    if by_text is not None:
        opened, settings = quantized_by_text(
            opened,
            settings,
            by_text,
            chosen,
            progress=lambda *step: say(ConversionStep(*step)),
        )
        chosen, workers = None, 1  # layers come in their order
    made = convert_source(
        opened,
        target,
        settings,
        chosen=chosen,
        force=force,
        report=report,
        progress=say,
        workers=workers,
    )
    if with_adapter is None:
        return made
    kept = None
    result = open_format(made.path, unquantized=False)
    if made.quantization is not None and result is not None:
        kept = kept_change(with_adapter, result)
    return replace(made, merged=with_adapter.merged, change_kept=kept)


def open_source(source: str | Path, destination: Path, *, unquantized: bool = False) -> Source:
    """Open a model in whatever format it is; ``destination`` must be another folder."""
    path = given_path(source)
    if not path.exists():
        path = _elsewhere(str(source))
    if path.resolve() == destination:
        raise ConfigError(
            f"{source} cannot be converted into itself", hint="name another destination"
        )
    opened = open_format(path, unquantized=unquantized)
    if opened is None:
        known = ", ".join(item.name for item in FORMATS)
        raise FormatError(
            # any folder is taken for one in Hugging Face's form
            f"{source} is a file in a format that edgellm does not know",
            hint=f"name the folder that holds the model's files, or a file or folder of {known}",
        )
    return opened


def _elsewhere(name: str) -> Path:
    """Find a source that is not a path. Raises ModelNotFoundError, DownloadError."""
    hub_name = parse_hub_name(name)
    if hub_name is not None and hub_name.is_gguf:
        return find_gguf(hub_name).fetched()
    if hub_name is not None:
        return download(hub_name.repository, torch_files=True)
    if name not in bundled_names() and (Path(name).suffix or Path(name).name != name):
        raise ModelNotFoundError(
            f"there is no file or folder {name}",
            hint="check the path; a model on the Hub is named owner/name",
        )
    return locate(name)
