"""A folder that another quantizer wrote, as a source: MLX's form where that says the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.quantization import CONFIG_KEYS, FLOATS, Quantization, is_foreign
from edgellm.converters.huggingface.source import HuggingFaceSource
from edgellm.converters.quantizers.own_config_files import block_of_own_file, own_weight_names
from edgellm.converters.quantizers.packed_matrix import Method, PackedMatrix, refuse
from edgellm.converters.tensors.dtypes import DTYPE_NAMES
from edgellm.converters.tensors.source import Bytes, DerivedSource, Source, SourceTensor
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import quoted

METHODS: Mapping[str, str] = {
    "gptq": "gptq:read_gptq",
    "awq": "awq:read_awq",
    "fp8": "fp8:read_fp8",
    "fbgemm_fp8": "fp8:read_fp8",
    "compressed-tensors": "compressed_tensors:read_compressed_tensors",
    "bitsandbytes": "bitsandbytes:read_bitsandbytes",
}
"""What reads each method that a config may name."""


class PackedSource(DerivedSource):
    """A folder of Hugging Face's whose matrices are packed by a method of ``METHODS``.

    Scales and numbers are shown in float32, and become the type of the model's other weights where
    no type is asked for.

    Raises:
        FormatError: a tensor is missing, or of another type or shape than its method says.
        UnsupportedModelError: a method or a variant of one that is not known.
    """

    def __init__(self, base: Source, method: str, block: Mapping[str, Any]) -> None:
        super().__init__(base)
        module, _, name = METHODS[method].partition(":")
        read: Method = getattr(import_module(f".{module}", __package__), name)
        packed = read(base, block)
        if not packed.matrices:
            raise FormatError(
                f"the config says {method}, and no matrix is packed so",
                hint="download the model again",
            )
        self._matrices = packed.matrices
        gone = packed.consumed | _empty_biases(base, packed.matrices)
        self.tensors: dict[str, SourceTensor] = {
            name: tensor for name, tensor in base.tensors.items() if name not in gone
        }
        usual = _usual_dtype(self.tensors)
        self.forms: dict[str, Quantization] = {}
        kept: Counter[Quantization] = Counter()
        for path, matrix in packed.matrices.items():
            self._show(path, matrix, usual)
            if matrix.kept is not None:
                kept[matrix.kept] += 1
        config = {key: value for key, value in base.config.items() if key not in CONFIG_KEYS}
        if kept:
            usual_form = kept.most_common(1)[0][0]
            config["quantization"] = usual_form.as_config() | {
                path: matrix.kept.as_config()
                for path, matrix in packed.matrices.items()
                if matrix.kept not in (None, usual_form)
            }
        self.config = config
        self.notes = [
            *base.notes,
            *packed.notes,
            *_notes(method, packed.matrices, usual),
        ]

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Return the bytes of some rows, shape (bytes,). Raises ReadError."""
        path, _, part = name.rpartition(".")
        matrix = self._matrices.get(path)
        if matrix is None or part == "bias":
            return super().rows(name, start, stop)
        # what overflows becomes infinite, and is refused where it is written
        with np.errstate(all="ignore"):
            rows = matrix.part(part, start, stop)
        return np.ascontiguousarray(rows).reshape(-1).view(np.uint8)

    def _show(self, path: str, matrix: PackedMatrix, usual: str) -> None:
        if matrix.kept is None:
            self.tensors[f"{path}.weight"] = SourceTensor("F32", matrix.shape, usual)
            self.forms[path] = matrix.wished
            return
        for part, (dtype, shape) in matrix.kept.stored(*matrix.shape, "F32").items():
            becomes = None
            if dtype == "F32":
                becomes = usual
            self.tensors[f"{path}.{part}"] = SourceTensor(dtype, shape, becomes)


def open_folder(path: Path) -> Source:
    """Open a folder of Hugging Face's, packed by another quantizer or not.

    Raises:
        FormatError, ReadError, UnsupportedModelError: as its source does.
    """
    source = HuggingFaceSource(path, weights=own_weight_names(path))
    block = source.config.get("quantization_config")
    if block is None:
        block = block_of_own_file(path, source.tensors)
    if not isinstance(block, Mapping) or "quantization" in source.config or not is_foreign(block):
        return source
    method = block["quant_method"]
    if not isinstance(method, str) or method not in METHODS:
        refuse(f"the model is quantized by {quoted(method)}")
    return PackedSource(source, method, block)


def _usual_dtype(tensors: Mapping[str, SourceTensor]) -> str:
    """Return the floating type of most of the tensors that are not packed."""
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        if tensor.dtype in FLOATS:
            sizes[tensor.dtype] += tensor.nbytes
    return next(iter(sizes.most_common(1)), ("F16", 0))[0]


def _empty_biases(base: Source, matrices: Mapping[str, PackedMatrix]) -> frozenset[str]:
    """Return the biases of nothing but zeros that the model does not have: AutoGPTQ writes them."""
    try:
        model = ModelConfig.from_dict(
            {key: value for key, value in base.config.items() if key not in CONFIG_KEYS}
        )
    except UnsupportedModelError:
        return frozenset()
    own = {name for name in model.tensor_shapes() if name.endswith(".bias")}
    names = [f"{path}.bias" for path in matrices if f"{path}.bias" in base.tensors]
    return frozenset(
        name
        for name in names
        if not name.endswith(tuple(own)) and not base.rows(name, 0, base.tensors[name].rows).any()
    )


def _notes(method: str, matrices: Mapping[str, PackedMatrix], usual: str) -> Sequence[str]:
    """Return what becomes of the matrices, in words."""
    forms = [matrix.kept for matrix in matrices.values() if matrix.kept is not None]
    rounded = sum(form.mode == "affine" for form in forms)
    dequantized = len(matrices) - len(forms)
    notes = []
    if rounded and usual != "F32":
        notes.append(
            f"{rounded} matrices keep the codes of {method}; their scales and zero points are "
            f"rounded to {DTYPE_NAMES[usual]} (--dtype float32 keeps them exactly)"
        )
    if len(forms) > rounded:
        notes.append(f"{len(forms) - rounded} matrices keep the codes and scales of {method}")
    if dequantized:
        notes.append(
            f"{dequantized} matrices of {method} are dequantized, "
            "and quantized again unless --bits 16 is given"
        )
    return notes
