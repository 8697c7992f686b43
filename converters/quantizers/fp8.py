"""Float8 weights with scales by block, by row, or one for the matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.converters.quantizers.packed_matrix import PackedFolder, Tensors
from edgellm.converters.quantizers.scaled_matrix import ScaledMatrix
from edgellm.converters.tensors.source import Source
from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted

SCALES = ("weight_scale_inv", "weight_scale")
ACTIVATIONS = ("input_scale", "activation_scale", "input_scale_ub", "k_scale", "v_scale")
"""Parts that tell how activations or the KV cache were rounded, which they are not here."""


def read_fp8(source: Source, block: Mapping[str, Any]) -> PackedFolder:
    """Find float8 matrices.

    Raises:
        FormatError: a tensor is missing, or of another type or shape.
    """
    tensors = Tensors(source)
    size = block_size(block)
    matrices = {
        path: ScaledMatrix(tensors, path, f"{path}.{part}", block=size)
        for part in SCALES
        for path in tensors.paths(part)
    }
    consumed = {f"{path}.{part}" for path in matrices for part in ("weight", *SCALES)}
    consumed |= {f"{path}.{part}" for part in ACTIVATIONS for path in tensors.paths(part)}
    return PackedFolder(matrices, frozenset(consumed))


def block_size(block: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the config's ``weight_block_size``; None: it has none."""
    match block.get("weight_block_size"):
        case None:
            return None
        case [int(rows), int(columns)]:
            return (rows, columns)
        case other:
            raise FormatError(
                f"config.json: weight_block_size is {quoted(other)}",
                hint="download the model again",
            )
