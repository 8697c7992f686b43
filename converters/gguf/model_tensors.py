"""A GGUF file's tensors by Hugging Face's names, and the form that each becomes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

from edgellm.checkpoint.quantization import Quantization, quantization_block
from edgellm.converters.gguf.architectures.names import huggingface_name
from edgellm.converters.gguf.blocks.affine_blocks import GROUP
from edgellm.converters.gguf.blocks.table import BLOCKS, FLOATS, FORMS, WITHOUT_VALUES
from edgellm.converters.gguf.header import GgufTensor
from edgellm.converters.gguf.metadata import OTHER_FILE
from edgellm.converters.gguf.rope_scaling import FACTOR_TENSORS
from edgellm.converters.tensors.file_rows import read_span
from edgellm.converters.tensors.floats import Floats
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted

SCALE, INPUT_SCALE = "scale", "input_scale"
"""Parts of a matrix that NVFP4 files have beside its weight: a factor, and one for activations.

The second is for processors that multiply in float4; it changes no weight.
"""

SCALED_FORM = Quantization(8, GROUP)
"""The form of a matrix that has a factor of its own, which no form of MLX has."""


def model_tensors(tensors: Mapping[str, GgufTensor], architecture: str) -> dict[str, GgufTensor]:
    """Return the model's tensors by Hugging Face's name, without the rope factors.

    Raises:
        UnsupportedModelError: there are tensors that none of edgellm's models have.
        FormatError: a matrix's factor is not a number.
        ReadError: the file cannot be read.
    """
    named: dict[str, GgufTensor] = {}
    scales: dict[str, GgufTensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        ours = huggingface_name(name, architecture)
        path, _, part = (ours or "").rpartition(".")
        if part == SCALE:
            scales[f"{path}.weight"] = tensor
        elif ours is not None and part != INPUT_SCALE:
            named[ours] = tensor
        elif ours is None and name not in FACTOR_TENSORS:
            unknown.append(name)
    if unknown:
        listed = ", ".join(map(quoted, sorted(unknown)[:3]))
        raise UnsupportedModelError(
            f"the GGUF file holds tensors that edgellm's models do not have: {listed}",
            hint=OTHER_FILE,
        )
    for name in scales.keys() & named.keys():
        named[name] = _scaled(named[name], _factor(scales[name]))
    return named


def _factor(tensor: GgufTensor) -> float:
    """Return the one number of a tensor."""
    values = float_row(tensor)
    if values.size != 1 or not math.isfinite(values[0]):
        raise FormatError(f"tensor {tensor.name} is not a single float32 number", hint=OTHER_FILE)
    return float(values[0])


def _scaled(tensor: GgufTensor, factor: float) -> GgufTensor:
    """Return a tensor with its factor. Raises UnsupportedModelError where it cannot be applied."""
    if factor != 1 and tensor.kind in WITHOUT_VALUES:
        raise UnsupportedModelError(
            f"tensor {tensor.name} of type {tensor.kind} has a factor of its own, "
            "which is not supported",
            hint=OTHER_FILE,
        )
    return replace(tensor, scale=factor)


def keeps_codes(tensor: GgufTensor, *, exactly: bool = False) -> bool:
    """Return whether a tensor's blocks are taken apart, and not dequantized.

    Args:
        tensor: the tensor.
        exactly: whether only blocks are whose values MLX's codes hold all.
    """
    if tensor.kind not in BLOCKS or tensor.scale != 1:
        return False
    return not (exactly and BLOCKS[tensor.kind].change)


def form_of(tensor: GgufTensor) -> Quantization | None:
    """Return what a tensor becomes where nothing else is asked for; None: it has no blocks."""
    if tensor.kind in FORMS and tensor.scale != 1:
        return SCALED_FORM
    return FORMS.get(tensor.kind)


def float_row(tensor: GgufTensor) -> Floats:
    """Return the numbers of a row of float32. Raises FormatError, or ReadError."""
    if tensor.kind != "F32" or len(tensor.shape) != 1:
        raise FormatError(f"tensor {tensor.name} is not a row of float32 numbers")
    return read_span(tensor.file, tensor.offset, tensor.nbytes).view("<f4")


def usual_quantization(tensors: Mapping[str, GgufTensor]) -> dict[str, Any]:
    """Return the config's block: the form that most weights have, and the exceptions."""
    forms: dict[str, Quantization | None] = {}
    weights: Counter[Quantization] = Counter()
    for name, tensor in tensors.items():
        if len(tensor.shape) != 2:
            continue
        form = form_of(tensor)
        if form is not None:
            weights[form] += prod(tensor.shape)
        forms[name.removesuffix(".weight")] = form
    if not weights:
        return {}
    [(usual, _)] = weights.most_common(1)
    return {"quantization": quantization_block(usual, forms)}


def type_notes(tensors: Iterable[GgufTensor]) -> list[str]:
    """Return what is to be said of the types that do not come in exactly."""
    notes = []
    kinds = Counter((tensor.kind, tensor.scale != 1) for tensor in tensors)
    for (kind, is_scaled), count in kinds.items():
        if kind in FLOATS:
            continue
        noun = "matrix" if count == 1 else "matrices"
        matrices = f"{count} {noun} of type {kind}"
        bits = FORMS[kind].bits
        if is_scaled:
            notes.append(
                f"{matrices} with a factor of its own, which MLX does not have: "
                f"quantized again to {SCALED_FORM.bits} bits"
            )
        elif kind not in BLOCKS:
            notes.append(f"{matrices}: MLX has no such type, quantized again to {bits} bits")
        elif BLOCKS[kind].change:
            change = BLOCKS[kind].change
            notes.append(f"{matrices}: kept as codes of {bits} bits, off by about {change:.0%}")
    return notes
