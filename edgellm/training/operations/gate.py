"""The gate of the feed-forward part with its derivatives, SwiGLU, on the kernels."""

# T tokens, F inner

from __future__ import annotations

from typing import cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.kernels.codegen.abi import SWIGLU, SWIGLU_BACKWARD
from edgellm.kernels.kernel_engine import KernelEngine, Step, make_step, step_array
from edgellm.models.llama import MLP

Floats = npt.NDArray[np.float32]


class KernelMLP(MLP):
    """A feed-forward part whose gate is ``silu(gate) * up``.

    Args:
        mlp: with the products.
        engine: the kernels.
    """

    def __init__(self, mlp: MLP, engine: KernelEngine) -> None:
        self.gate_up_proj, self.down_proj, self.gate = mlp.gate_up_proj, mlp.down_proj, mlp.gate
        self._engine = engine

    def __call__(self, x: mx.array) -> mx.array:
        """Return the feed-forward part (1, T, E) for normalized states (1, T, E)."""
        return self.down_proj(self._gated(self.gate_up_proj(x)))

    def _gated(self, gate_up: mx.array) -> mx.array:
        """Return (1, T, F) of gates and what they gate, (1, T, 2F)."""

        @mx.custom_function
        def gated(gate_up: mx.array) -> mx.array:
            rows = _rows(gate_up)
            out = np.empty((len(rows), rows.shape[1] // 2), np.float32)
            step = make_step(
                self._engine.kernel("swiglu"),
                SWIGLU,
                gate_up=rows.ctypes.data,
                out=out.ctypes.data,
                inner=out.shape[1],
            )
            self._run(step, len(rows))
            return mx.array(out[None])

        @gated.vjp
        def gated_vjp(gate_up: mx.array, gradient: mx.array, _: mx.array) -> mx.array:
            rows, by_out = _rows(gate_up), _rows(gradient)
            by_gate_up = np.empty_like(rows)
            step = make_step(
                self._engine.kernel("swiglu_backward"),
                SWIGLU_BACKWARD,
                gate_up=rows.ctypes.data,
                out=by_out.ctypes.data,
                by_gate_up=by_gate_up.ctypes.data,
                inner=by_out.shape[1],
            )
            self._run(step, len(rows))
            return mx.array(by_gate_up[None])

        return cast(mx.array, gated(gate_up))

    def _run(self, step: Step, tokens: int) -> None:
        with self._engine.lock:
            self._engine.run(step_array([step]), tokens)


def _rows(array: mx.array) -> Floats:
    """Return (1, T, F) as (T, F), one row after the other in memory."""
    return np.ascontiguousarray(np.array(array, copy=False)[0])
