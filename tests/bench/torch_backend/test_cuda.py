"""Linear layers for NVIDIA GPUs, as far as they can be tried without one."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="torch is not installed")

from support.quantized_weights import (
    IN_FEATURES,
    OUT_FEATURES,
    quantized_weight,
    relative_error,
)

from edgellm.bench.torch_backend.cuda import TritonLinear, nibbles
from edgellm.bench.torch_backend.int4 import Int4CUDA

# of several test processes, each with as many as there are cores, none gets on
torch.set_num_threads(1)

INTERPRETED = """
import torch
from edgellm.bench.torch_backend.cuda import nibbles
from edgellm.bench.torch_backend.triton_matvec import matvec
from edgellm.bench.torch_backend.weights import QuantizedWeight

torch.manual_seed(0)
for bits, group_size, rows, groups in [
    (4, 32, 7, 5), (4, 64, 16, 3), (4, 128, 33, 9), (8, 32, 6, 40), (8, 64, 5, 2), (8, 128, 9, 1)
]:
    codes = torch.randint(0, 2**bits, (rows, groups * group_size), dtype=torch.uint8)
    scales, biases = (torch.randn(rows, groups).bfloat16() for _ in range(2))
    weight = QuantizedWeight(codes, scales, biases, bits)
    x = torch.randn(3, groups * group_size)
    stored = codes if bits == 8 else nibbles(codes)
    y = matvec(x, stored, scales, biases, one_a_byte=bits == 8)
    expected = x @ weight.dequantize(torch.float32).T
    assert (y - expected).abs().max() < 1e-5 * expected.abs().max(), (bits, group_size)
print("done")
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from edgellm.bench.torch_backend.triton_matvec import COLUMNS, ROWS, kernel

types = dict(
    x="*bf16", codes="*u8", scales="*fp16", biases="*fp16", y="*bf16", rows_in_all="i32"
)
for wide, group in [(False, 32), (False, 128), (True, 64)]:
    fixed = dict(columns=4096, group=group, wide=wide, rows=ROWS, groups=COLUMNS // group)
    signature = types | dict.fromkeys(fixed, "constexpr")
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed)
    assert "ld.global" in triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]
print("done")
"""


def run_script(code, **variables):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
    )
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_many_tokens_are_multiplied_by_the_same_weights(bits, monkeypatch):
    weight, numbers = quantized_weight(bits, 32)
    linear = TritonLinear(weight, None, torch.device("cpu"))
    x = torch.randn(20, IN_FEATURES).bfloat16()
    assert relative_error(linear(x), x.float() @ numbers.T) < 6e-3
    monkeypatch.setattr(TritonLinear, "SLICE_WEIGHTS", 7 * IN_FEATURES)
    assert relative_error(linear(x), x.float() @ numbers.T) < 6e-3
    code_bytes = OUT_FEATURES * IN_FEATURES // (1 if bits == 8 else 2)
    assert linear.nbytes == code_bytes + 2 * OUT_FEATURES * (IN_FEATURES // 32) * 2


def test_nibbles_hold_the_even_column_low():
    codes = torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8)
    assert nibbles(codes).tolist() == [[1 + 16 * 2, 3 + 16 * 4]]


def test_the_triton_kernel_computes_the_same_in_its_interpreter():
    pytest.importorskip("triton", reason="triton is not installed")
    run_script(INTERPRETED, TRITON_INTERPRET="1")


def test_the_triton_kernel_compiles_for_a_gpu_that_is_not_here():
    pytest.importorskip("triton", reason="triton is not installed")
    run_script(COMPILED)


@pytest.mark.cuda
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_the_kernels_of_a_gpu_compute_the_same(bits, group_size):
    weight, numbers = quantized_weight(bits, group_size)
    for kind in (Int4CUDA, TritonLinear):
        if kind is TritonLinear:
            pytest.importorskip("triton", reason="triton is not installed")
        linear = kind(weight, None, torch.device("cuda"))
        for tokens in (1, 4, 64):
            x = torch.randn(tokens, IN_FEATURES).bfloat16()
            assert relative_error(linear(x.cuda()).cpu(), x.float() @ numbers.T) < 6e-3
