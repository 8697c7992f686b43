"""Which kernels there are, and where each is emitted."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from edgellm.kernels.codegen.isa import Isa

# Modules and functions by name: llvmlite and the emitters are imported only to compile.
EMITTERS: Mapping[str, str] = {
    # the thread pool
    "run": "codegen.schedule:emit_run",
    "work": "codegen.schedule:emit_work",
    "apart": "codegen.schedule:emit_apart",
    # between machines
    "exchange": "exchange.lanes:emit_exchange",
    "relay": "exchange.relay:emit_relay",
    # a layer's steps between products
    "norm": "elementwise.rms_norm:emit_norm",
    "rope": "elementwise.rope:emit_rope",
    "attention": "attention.attention:emit_attention",
    "tile_attention": "attention.tile_attention:emit_tile_attention",
    "merge": "attention.merge:emit_merge",
    "swiglu": "elementwise.swiglu:emit_swiglu",
    # around products
    "bias": "elementwise.bias:emit_bias",
    "stretch": "elementwise.stretch:emit_stretch",
    "quantize": "elementwise.quantize_activations:emit_quantize",
    "pack": "elementwise.pack:emit_pack",
    # derivatives
    "turn": "derivatives.turn:emit_turn",
    "pair_matmul": "derivatives.pair_matmul:emit_pair_matmul",
    "norm_backward": "elementwise.rms_norm:emit_norm_backward",
    "cross_entropy": "derivatives.cross_entropy:emit_cross_entropy",
    "rotate": "derivatives.rotate:emit_rotate",
    "causal": "derivatives.causal_attention:emit_causal",
    "causal_backward": "derivatives.causal_attention:emit_causal_backward",
    "strided_matmul": "derivatives.strided_matmul:emit_strided_matmul",
    "swiglu_backward": "elementwise.swiglu:emit_swiglu_backward",
    # conversion
    "quantize_weights": "elementwise.quantize_weights:emit_quantize_weights",
    # products: one token, several ("few", "tile_matvec"), many
    "int8_matvec": "matmul.int8_matvec:emit_int8_matvec",
    "int8_few": "few_rows.int8_few:emit_int8_few",
    "float_matvec": "matmul.float_matvec:emit_float_matvec",
    "float_few": "matmul.float_matvec:emit_float_few",
    "int8_matmul": "matmul.int8_matmul:emit_int8_matmul",
    "float_matmul": "matmul.float_matmul:emit_float_matmul",
    "tile_matvec": "few_rows.tile_matvec:emit_tile_matvec",
    "tile_few": "few_rows.tile_few:emit_tile_few",
    "tile_matmul": "matmul.tile_matmul:emit_tile_matmul",
}


def function_name(kernel: str, *arguments: object) -> str:
    """Return a kernel's name with its arguments: ``edgellm_int8_matvec_4_64_f16``."""
    return "_".join(["edgellm", kernel, *map(str, arguments)])


def emitted(kernel: str, isa: Isa, *arguments: object) -> str:
    """Return the LLVM module of a kernel; its one function has the name of ``function_name``.

    Raises:
        ImportError: llvmlite is not installed.
    """
    module, _, function = EMITTERS[kernel].partition(":")
    emit = getattr(import_module(f"edgellm.kernels.{module}"), function)
    text: str = emit(isa, function_name(kernel, *arguments), *arguments)
    return text
