"""A technique of training: what is learned, on which weights, and how memory is spared."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.bench.records.backend_names import OWN

MLX_LM, PEFT, CUDA = "mlx-lm", "peft", "cuda"
"""Libraries that train, beside our own; PEFT and torch compute on the processor or by CUDA."""

FULL, LORA, QLORA = "full", "lora", "qlora"

METHODS = {FULL: "full", LORA: "LoRA", QLORA: "QLoRA"}
"""What is learned, with its name in tables: all numbers, or low-rank changes of a model in 16 bits
or in fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique:
    """A row of the table.

    Attributes:
        backend: the library that trains.
        method: ``full``, ``lora`` or ``qlora``.
        bits: of the model's weights as they are stored.
        dtype: of activations, and of weights that are not quantized; None: the backend's choice.
        checkpointing: whether activations are computed again in the backward pass.
        accumulation: parts that a step is cut into.
        paged: whether layers are read from disk as they are needed.
        memory: bytes of the process, where it is paged; None: the least.
    """

    backend: str
    method: str
    bits: int = 16
    dtype: str | None = None
    checkpointing: bool = False
    accumulation: int = 1
    paged: bool = False
    memory: int | None = None

    @property
    def _needs_checkpointing(self) -> bool:
        return self.paged or (self.backend == OWN and self.method == FULL)

    @property
    def title(self) -> str:
        """The technique in words, the backend left out."""
        parts = [METHODS[self.method]]
        if self.method == QLORA:
            parts[0] += f" {self.bits}-bit"
        if self.dtype is not None:
            parts.append(self.dtype)
        if self.checkpointing and not self._needs_checkpointing:
            parts.append("checkpointed")
        if self.accumulation > 1:
            parts.append(f"{self.accumulation} parts")
        if self.paged:
            parts.append("paged")
            if self.memory is not None:
                parts[-1] += f" {self.memory / 1e6:.0f} MB"
        return ", ".join(parts)
