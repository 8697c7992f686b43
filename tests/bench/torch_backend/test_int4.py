"""Products with quantized weights in torch give what the dequantized weights give, whatever the bits and groups."""

import os
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="torch is not installed")

from edgellm.bench.torch_backend.cuda import GroupedBytes, nibbles
from edgellm.bench.torch_backend.int4 import (
    INNER_TILES,
    Int4CPU,
    Int4CUDA,
    Scratch,
    cuda_pairs,
    filled,
    packed_rows,
    split,
    tables,
)
from edgellm.bench.torch_backend.weights import Codes, unpack

# of several test processes, each with as many as there are cores, none gets on
torch.set_num_threads(1)

ROWS, COLUMNS = 200, 384
"""No whole number of the kernels' blocks of rows."""

TRITON = """
import torch
from edgellm.bench.torch_backend.cuda import nibbles
from edgellm.bench.torch_backend.weights import Codes
from edgellm.bench.torch_backend.triton_matvec import matvec

torch.manual_seed(0)
shapes = [(4, 32, 7, 5), (4, 64, 16, 3), (4, 128, 33, 9), (8, 32, 6, 40), (8, 64, 5, 2), (8, 128, 9, 1)]
for bits, group, rows, groups in shapes:
    codes = torch.randint(0, 2**bits, (rows, groups * group), dtype=torch.uint8)
    matrix = Codes(codes, torch.randn(rows, groups).bfloat16(), torch.randn(rows, groups).bfloat16(), bits)
    x = torch.randn(3, groups * group)
    y = matvec(x, codes if bits == 8 else nibbles(codes), matrix.scales, matrix.biases, wide=bits == 8)
    expected = x @ matrix.dequantized(torch.float32).T
    assert (y - expected).abs().max() < 1e-5 * expected.abs().max(), (bits, group)
print("done")
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from edgellm.bench import triton_matvec

types = dict(x="*bf16", codes="*u8", scales="*fp16", biases="*fp16", y="*bf16", rows_in_all="i32")
for wide, group in [(False, 32), (False, 128), (True, 64)]:
    fixed = dict(columns=4096, group=group, wide=wide, rows=triton_matvec.ROWS, groups=triton_matvec.COLUMNS // group)
    source = ASTSource(fn=triton_matvec._kernel, signature=types | dict.fromkeys(fixed, "constexpr"), constexprs=fixed)
    assert "ld.global" in triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]
print("done")
"""


def quantized(bits, group, dtype=mx.bfloat16):
    """Random codes as MLX makes them, in torch, and the numbers that they stand for in float32."""
    mx.random.seed(bits * group)
    packed, scales, biases = mx.quantize(
        mx.random.normal((ROWS, COLUMNS)).astype(dtype), group_size=group, bits=bits
    )
    exact = [part.astype(mx.float32) for part in (scales, biases)]
    numbers = torch.from_numpy(np.array(mx.dequantize(packed, *exact, group_size=group, bits=bits)))
    own = [
        torch.from_numpy(np.array(part)).to(
            torch.bfloat16 if dtype == mx.bfloat16 else torch.float16
        )
        for part in exact
    ]
    return Codes(
        unpack(torch.from_numpy(np.array(packed).view(np.int32)), bits), *own, bits
    ), numbers


def error(found, expected):
    return float((found.float() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_codes_are_read_as_mlx_reads_them(bits, group):
    matrix, numbers = quantized(bits, group)
    assert torch.equal(matrix.dequantized(torch.float32), numbers)


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_a_processors_int4_kernel_multiplies_codes_of_any_bits(bits, group):
    matrix, numbers = quantized(bits, group)
    exact = Int4CPU(matrix, None, torch.float32, Scratch(), many=9)
    quick = Int4CPU(matrix, None, torch.bfloat16, Scratch(), many=9)
    for tokens in (1, 3, 8, 9, 40):  # through the kernel, and from 9 on dequantized in slices
        x = torch.randn(tokens, COLUMNS, generator=torch.Generator().manual_seed(tokens))
        assert error(exact(x), x @ numbers.T) < 5e-6
        short = x.bfloat16()
        assert error(quick(short), short.float() @ numbers.T) < (0.02 if bits == 2 else 6e-3)


def test_eight_bits_lose_nothing_to_the_tables_of_bfloat16():
    matrix, numbers = quantized(8, 64)
    packed = tables(matrix, torch.bfloat16).float().transpose(0, 1)
    groups = COLUMNS // 64
    scales, zeros = packed.unbind(-1)
    low, high = (split(matrix).view(ROWS, 2, groups, 64).float() - 8).unbind(1)
    found = (
        low * scales[:, :groups, None]
        + zeros[:, :groups, None]
        + high * scales[:, groups:, None]
        + zeros[:, groups:, None]
    )
    assert error(found.view(ROWS, COLUMNS), numbers) < 1e-5


def test_the_bias_is_added_and_shapes_are_kept():
    matrix, numbers = quantized(4, 64)
    bias = torch.arange(ROWS, dtype=torch.float32)
    product = Int4CPU(matrix, bias, torch.float32, Scratch(), many=100)
    x = torch.randn(2, 3, COLUMNS)
    assert product(x).shape == (2, 3, ROWS)
    assert error(product(x), x @ numbers.T + bias) < 5e-6
    assert product.nbytes == 256 * COLUMNS // 2 + 256 * (COLUMNS // 64) * 2 * 4


def test_the_packing_of_this_processor_is_understood():
    found = packed_rows()
    if found is None:
        pytest.skip("torch packs otherwise on this processor: prompts go through the int4 kernel")
    block, order = found
    assert sorted(order) == list(range(block))


def test_a_scratch_gives_the_same_memory_again():
    scratch = Scratch()
    first = scratch.take("codes", 100, torch.float32)
    assert scratch.take("codes", 50, torch.float32).data_ptr() == first.data_ptr()
    assert scratch.take("numbers", 50, torch.float32).data_ptr() != first.data_ptr()
    assert scratch.take("codes", 200, torch.float32).numel() == 200


@pytest.mark.parametrize("bits", [4, 8])
def test_what_the_cuda_packing_is_given_has_its_shapes(bits):
    matrix, _ = quantized(bits, 64)
    assert Int4CUDA.takes(matrix)
    pairs = cuda_pairs(split(filled(matrix)))
    columns = COLUMNS * (2 if bits == 8 else 1)
    assert torch.equal(pairs[:ROWS] >> 4, split(matrix)[:, ::2])
    assert torch.equal(pairs[:ROWS] & 15, split(matrix)[:, 1::2])
    # says what does not fit
    packed = torch.ops.aten._convert_weight_to_int4pack(pairs.to("meta"), INNER_TILES)
    assert packed.shape == (256 // 8, columns // (INNER_TILES * 16), 32, INNER_TILES // 2)
    assert tables(filled(matrix), torch.bfloat16).shape == (columns // 64, 256, 2)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_a_prompt_on_a_gpu_dequantizes_the_same_weights(bits):
    matrix, numbers = quantized(bits, 32)
    product = GroupedBytes(matrix, None, torch.device("cpu"))
    x = torch.randn(20, COLUMNS).bfloat16()
    assert error(product(x), x.float() @ numbers.T) < 6e-3
    product.SLICE = 7 * COLUMNS
    assert error(product(x), x.float() @ numbers.T) < 6e-3
    assert (
        product.nbytes == ROWS * COLUMNS // (1 if bits == 8 else 2) + 2 * ROWS * (COLUMNS // 32) * 2
    )


def test_nibbles_hold_the_even_column_low():
    codes = torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8)
    assert nibbles(codes).tolist() == [[1 + 16 * 2, 3 + 16 * 4]]


def test_the_triton_kernel_computes_the_same_in_its_interpreter():
    pytest.importorskip("triton", reason="triton is not installed")
    variables = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRITON], capture_output=True, text=True, check=False, env=variables
    )
    assert done.stdout == "done\n", done.stderr


def test_the_triton_kernel_compiles_for_a_gpu_that_is_not_here():
    pytest.importorskip("triton", reason="triton is not installed")
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False
    )
    assert done.stdout == "done\n", done.stderr


@pytest.mark.cuda
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_the_kernels_of_a_gpu_compute_the_same(bits, group):
    matrix, numbers = quantized(bits, group)
    for kind in (Int4CUDA, GroupedBytes):
        if kind is GroupedBytes:
            pytest.importorskip("triton", reason="triton is not installed")
        product = kind(matrix, None, torch.device("cuda"))
        for tokens in (1, 4, 64):
            x = torch.randn(tokens, COLUMNS).bfloat16()
            assert error(product(x.cuda()).cpu(), x.float() @ numbers.T) < 6e-3
