"""SwiGLU gates and RMS norms with their derivatives, on the kernels."""

# T tokens, E hidden, F inner

from __future__ import annotations

from contextlib import suppress
from typing import cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.errors import BackendError
from edgellm.kernels.codegen.abi import NORM, NORM_BACKWARD, SWIGLU, SWIGLU_BACKWARD
from edgellm.kernels.kernel_engine import (
    KernelEngine,
    Step,
    float32_bits,
    make_step,
    step_array,
)
from edgellm.models.cpu.linear import kernel_vector
from edgellm.models.linear import Linear
from edgellm.models.llama import MLP, Gate, Norm, RMSNorm

Floats = npt.NDArray[np.float32]


class KernelMLP(MLP):
    """A feed-forward part whose gate is ``silu(gate) * up``.

    Args:
        mlp: with the products.
        engine: the kernels.
    """

    def __init__(self, mlp: MLP, engine: KernelEngine) -> None:
        self.gate_up_proj: Linear = mlp.gate_up_proj
        self.down_proj: Linear = mlp.down_proj
        self.gate: Gate = mlp.gate
        self._engine = engine

    def __call__(self, x: mx.array) -> mx.array:
        """Return the feed-forward part (1, T, E) for normalized states (1, T, E)."""
        return self.down_proj(self._gated(self.gate_up_proj(x)))

    def _gated(self, gate_up: mx.array) -> mx.array:
        """Return (1, T, F) of gates and what they gate, (1, T, 2F)."""

        @mx.custom_function
        def gated(gate_up: mx.array) -> mx.array:
            return mx.array(self.gated_rows(_rows(gate_up))[None])

        @gated.vjp
        def gated_vjp(gate_up: mx.array, gradient: mx.array, _: mx.array) -> mx.array:
            return mx.array(self.gate_derivatives(_rows(gate_up), _rows(gradient))[None])

        return cast(mx.array, gated(gate_up))

    def gated_rows(self, gate_up: Floats) -> Floats:
        """Return (T, F) of gates and what they gate, (T, 2F)."""
        out = np.empty((len(gate_up), gate_up.shape[1] // 2), np.float32)
        step = make_step(
            self._engine.kernel("swiglu"),
            SWIGLU,
            gate_up=gate_up.ctypes.data,
            out=out.ctypes.data,
            inner=out.shape[1],
        )
        _run(self._engine, step, len(gate_up))
        return out

    def gate_derivatives(self, gate_up: Floats, by_out: Floats) -> Floats:
        """Return derivatives by ``gate_up``, of those by what ``gated_rows`` returned."""
        by_gate_up = np.empty_like(gate_up)
        step = make_step(
            self._engine.kernel("swiglu_backward"),
            SWIGLU_BACKWARD,
            gate_up=gate_up.ctypes.data,
            out=by_out.ctypes.data,
            by_gate_up=by_gate_up.ctypes.data,
            inner=by_out.shape[1],
        )
        _run(self._engine, step, len(gate_up))
        return by_gate_up


class KernelNorm:
    """An RMS norm of rows, whose weight is frozen; it may change between calls, as buffers do.

    Args:
        norm: with the weight.
        engine: the kernels.

    Raises:
        BackendError: there are no kernels for the weight's type.
    """

    def __init__(self, norm: RMSNorm, engine: KernelEngine) -> None:
        self._engine = engine
        # the kernels read it by address, so it must live as long
        self._norm = norm
        self._weight = kernel_vector(norm.weight)

    def __call__(self, x: mx.array) -> mx.array:
        """Return states (..., E) normed."""

        @mx.custom_function
        def normed(x: mx.array) -> mx.array:
            return mx.array(self.normed_rows(_rows(x)).reshape(x.shape))

        @normed.vjp
        def normed_vjp(x: mx.array, gradient: mx.array, _: mx.array) -> mx.array:
            return mx.array(self.derivatives(_rows(x), _rows(gradient)).reshape(x.shape))

        return cast(mx.array, normed(x))

    def normed_rows(self, x: Floats) -> Floats:
        """Return states (T, E) normed."""
        out = np.empty_like(x)
        step = make_step(
            self._engine.kernel("norm", self._weight.kind),
            NORM,
            x=x.ctypes.data,
            weight=self._weight.address,
            out=out.ctypes.data,
            hidden=x.shape[1],
            row_bytes=4 * x.shape[1],
            eps=float32_bits(self._norm.eps),
        )
        _run(self._engine, step, len(x))
        return out

    def derivatives(self, x: Floats, by_out: Floats) -> Floats:
        """Return derivatives by states, of those by what ``normed_rows`` returned."""
        by_x = np.empty_like(x)
        step = make_step(
            self._engine.kernel("norm_backward", self._weight.kind),
            NORM_BACKWARD,
            x=x.ctypes.data,
            weight=self._weight.address,
            by_out=by_out.ctypes.data,
            by_x=by_x.ctypes.data,
            hidden=x.shape[1],
            eps=float32_bits(self._norm.eps),
        )
        _run(self._engine, step, len(x))
        return by_x


def kernel_norm(norm: Norm, engine: KernelEngine | None) -> Norm:
    """Return a norm on the kernels where they can, else as it is."""
    if engine is None or type(norm) is not RMSNorm:
        return norm
    with suppress(BackendError):
        return KernelNorm(norm, engine)
    return norm


def _run(engine: KernelEngine, step: Step, tokens: int) -> None:
    with engine.lock:
        engine.run(step_array([step]), tokens)


def _rows(array: mx.array) -> Floats:
    """Return (..., N) as (T, N), one row after the other in memory."""
    return np.ascontiguousarray(np.array(array, copy=False).reshape(-1, array.shape[-1]))
