"""Which kernels there are, and where each is emitted; the emitters are imported only to compile."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from edgellm.kernels.isa import Isa

EMITTERS: Mapping[str, str] = {
    "run": "schedule:emit_run",
    "work": "schedule:emit_work",
    "apart": "schedule:emit_apart",
    "norm": "norm:emit_norm",
    "rotary": "rotary:emit_rotary",
    "attention": "attention:emit_attention",
    "merge": "merge:emit_merge",
    "swiglu": "swiglu:emit_swiglu",
    "bias": "bias:emit_bias",
    "quantize": "quantize:emit_quantize",
    "pack": "pack:emit_pack",
    "int8_matvec": "matvec:emit_int8_matvec",
    "int8_few": "matvec:emit_int8_few",
    "float_matvec": "float_matvec:emit_float_matvec",
    "float_few": "float_matvec:emit_float_few",
    "int8_matmul": "matmul:emit_int8_matmul",
    "float_matmul": "matmul:emit_float_matmul",
    "tile_matvec": "tile_matvec:emit_tile_matvec",
    "tile_matmul": "tile_matmul:emit_tile_matmul",
}


def function_name(kernel: str, *arguments: object) -> str:
    """The name of a kernel made for these arguments: ``edgellm_int8_matvec_4_64_f16``."""
    return "_".join(["edgellm", kernel, *map(str, arguments)])


def emitted(kernel: str, isa: Isa, *arguments: object) -> str:
    """The LLVM module of a kernel; its one function has the kernel's name.

    Raises:
        ImportError: llvmlite is not installed.
    """
    module, _, function = EMITTERS[kernel].partition(":")
    emit = getattr(import_module(f"edgellm.kernels.{module}"), function)
    text: str = emit(isa, function_name(kernel, *arguments), *arguments)
    return text
