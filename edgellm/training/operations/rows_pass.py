"""A decoder layer there and back in float32 rows, all of whose parts are on the kernels."""

# T tokens of all sequences, N features

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgellm.models.llama import Block
from edgellm.training.elementwise.gate_and_norms import KernelMLP, KernelNorm
from edgellm.training.operations.adapted_product import AdaptedProduct
from edgellm.training.operations.rotary_attention import RotaryAttention

Floats = npt.NDArray[np.float32]


class Parts(NamedTuple):
    """Of a layer's rows what need not be computed again: products, and what is attended to.

    ``attended`` is there where the product that follows is changed: its derivatives need it.
    ``middle`` are the states between attention and the feed-forward part.
    """

    qkv: Floats
    attended: Floats | None
    middle: Floats
    gate_up: Floats


class RowsPass:
    """A layer there and back in rows (T, N): nothing is copied by MLX between its parts.

    Args:
        norms: before attention, and before the feed-forward part.
        attention: whose heads attend.
        mlp: whose gate it is.
        products: of the layer, with the changes that they have at each call.
    """

    def __init__(
        self,
        norms: tuple[KernelNorm, KernelNorm],
        attention: RotaryAttention,
        mlp: KernelMLP,
        products: Mapping[str, AdaptedProduct],
    ) -> None:
        self._norms, self._heads, self._mlp = norms, attention.heads, mlp
        self._qkv, self._o = products["self_attn.qkv_proj"], products["self_attn.o_proj"]
        self._gate_up, self._down = products["mlp.gate_up_proj"], products["mlp.down_proj"]

    @classmethod
    def of(cls, block: Block, products: Mapping[str, AdaptedProduct]) -> RowsPass | None:
        """Return that of a block; None where it is not LLaMA's, or a part is not on the kernels."""
        if type(block).__call__ is not Block.__call__:
            return None
        one, two = block.input_layernorm, block.post_attention_layernorm
        attention, mlp = block.self_attn, block.mlp
        if not isinstance(attention, RotaryAttention) or not isinstance(mlp, KernelMLP):
            return None
        if not isinstance(one, KernelNorm) or not isinstance(two, KernelNorm):
            return None
        return cls((one, two), attention, mlp, products)

    def through(self, x: Floats, lengths: Sequence[int], kept: list[Parts] | None) -> Floats:
        """Return the states after the layer; ``kept`` gets its parts, unless it is None."""
        parts = self._parts(x, lengths)
        if kept is not None:
            kept.append(parts)
        out = self._down.rows(self._mlp.gated_rows(parts.gate_up))
        out += parts.middle
        return out

    def back(
        self, x: Floats, by_out: Floats, lengths: Sequence[int], kept: list[Parts] | None
    ) -> tuple[Floats, dict[str, Floats]]:
        """Return derivatives by states before the layer and by numbers, of those after it."""
        qkv, attended, middle, gate_up = kept.pop() if kept else self._parts(x, lengths)
        by_gated, numbers = self._down.derivatives(self._mlp.gated_rows(gate_up), by_out)
        by_gate_up = self._mlp.gate_derivatives(gate_up, by_gated)
        del gate_up, by_gated
        by_normed, own = self._gate_up.derivatives(self._norms[1].normed_rows(middle), by_gate_up)
        numbers |= own
        del by_gate_up
        by_middle = self._norms[1].derivatives(middle, by_normed)
        by_middle += by_out
        del middle, by_normed
        by_attended, own = self._o.derivatives(attended, by_middle)
        numbers |= own
        by_qkv = self._heads.derivatives(qkv, lengths, by_attended)
        del qkv, attended, by_attended
        by_normed, own = self._qkv.derivatives(self._norms[0].normed_rows(x), by_qkv)
        numbers |= own
        by_x = self._norms[0].derivatives(x, by_normed)
        by_x += by_middle
        return by_x, numbers

    def _parts(self, x: Floats, lengths: Sequence[int]) -> Parts:
        qkv = self._qkv.rows(self._norms[0].normed_rows(x))
        attended = self._heads.attended(qkv, lengths)
        middle = self._o.rows(attended)
        middle += x
        gate_up = self._gate_up.rows(self._norms[1].normed_rows(middle))
        return Parts(qkv, attended if self._o.is_changed else None, middle, gate_up)
