"""Weights as pretraining begins with them."""

# L layers

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.checkpoint.family_configs import FAMILIES
from edgellm.converters.synthetic.model_shape import shape_of
from edgellm.converters.tensors.floats import stored
from edgellm.converters.tensors.source import AS_SHOWN, Bytes, SourceTensor

DEVIATION = 0.02
"""Of matrices, where the config has no ``initializer_range``: that of GPT-2 and LLaMA."""

RESIDUAL = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
"""Matrices whose results are added to the hidden states; there are two a layer."""


class UntrainedSource:
    """A source of weights that nothing was learned with.

    Matrices are normal with a deviation of 0.02, those that add to the hidden states of
    ``0.02 / sqrt(2 L)``, so that the sum over all layers does not grow with their number (GPT-2:
    Radford et al. 2019). Norms pass on what they normalize, and biases are 0.

    Args:
        shape: a name of ``presets.SHAPES``, or a folder with a ``config.json``.
        dtype: ``float16``, ``bfloat16`` or ``float32``; None: the config's.
        seed: of the weights.
    """

    notes: Sequence[str] = ()
    forms = AS_SHOWN

    def __init__(self, shape: str | Path, *, dtype: str | None = None, seed: int = 0) -> None:
        model = shape_of(shape, dtype=dtype)
        self.config: Mapping[str, Any] = model.config
        self.companions: Mapping[str, Path | bytes] = model.companions
        self.tensors: Mapping[str, SourceTensor] = {
            name: SourceTensor(model.code, size) for name, size in model.tensors().items()
        }
        self._seed = seed
        self._norm = 1.0 - FAMILIES[model.numbers.model_type].norm_offset
        self._deviation = float(model.config.get("initializer_range") or DEVIATION)
        self._residual = self._deviation / math.sqrt(2 * model.numbers.num_hidden_layers)

    @property
    def fingerprint(self) -> str:
        """The seed; all else the recipe's digest tells apart."""
        return f"untrained {self._seed}"

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Return the bytes of rows ``start`` to ``stop`` of a tensor, shape (bytes,)."""
        tensor = self.tensors[name]
        if len(tensor.shape) == 1:
            value = 0.0 if name.endswith(".bias") else self._norm
            return stored(np.full(stop - start, value, np.float32), tensor.dtype)
        deviation = self._residual if name.endswith(RESIDUAL) else self._deviation
        key = hashlib.sha256(f"{self._seed} {name}".encode()).digest()[:16]
        values = np.empty((stop - start, tensor.shape[1]), np.float32)
        for row in range(start, stop):
            # a stream of its own for each row: files are made in any parts, by several threads
            draws = np.random.Philox(key=int.from_bytes(key, "little"), counter=row << 64)
            values[row - start] = np.random.Generator(draws).standard_normal(
                tensor.shape[1], dtype=np.float32
            )
        values *= np.float32(deviation)
        return stored(values, tensor.dtype)
