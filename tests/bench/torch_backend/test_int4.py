"""Products through torch's int4 kernels are those with the dequantized weights."""

import os
import platform
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

from edgellm.bench.torch_backend.int4 import (
    INNER_K_TILES,
    LAYOUTS,
    Int4CPU,
    Int4CUDA,
    Scratch,
    int4_codes,
    packed_layout,
    pad_rows,
    pairs_for_cuda,
    scales_and_zeros,
)

# of several test processes, each with as many as there are cores, none gets on
torch.set_num_threads(1)

LAYOUT_OF_THIS_PROCESS = """
from edgellm.bench.torch_backend.int4 import LAYOUTS, packed_layout
print(LAYOUTS.index(packed_layout()))
"""


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 8])
def test_the_kernel_multiplies_codes_of_any_bits(bits, group_size):
    weight, numbers = quantized_weight(bits, group_size)
    exact = Int4CPU(weight, None, torch.float32, Scratch(), dequantize_from=9)
    quick = Int4CPU(weight, None, torch.bfloat16, Scratch(), dequantize_from=9)
    for tokens in (1, 3, 8, 9, 40):  # through the kernel, and from 9 on dequantized in slices
        x = torch.randn(tokens, IN_FEATURES, generator=torch.Generator().manual_seed(tokens))
        assert relative_error(exact(x), x @ numbers.T) < 5e-6
        rounded = x.bfloat16()
        allowed = {1: 0.04, 2: 0.02}.get(bits, 6e-3)
        assert relative_error(quick(rounded), rounded.float() @ numbers.T) < allowed


def test_a_weight_of_many_slices_is_the_same_weight(monkeypatch):
    weight, numbers = quantized_weight(4, 64)
    monkeypatch.setattr(Int4CPU, "SLICE_WEIGHTS", 1)
    linear = Int4CPU(weight, None, torch.float32, Scratch(), dequantize_from=1)
    x = torch.randn(5, IN_FEATURES)
    assert relative_error(linear(x), x @ numbers.T) < 5e-6


def test_eight_bits_lose_nothing_to_zeros_in_bfloat16():
    weight, numbers = quantized_weight(8, 64)
    pairs = scales_and_zeros(weight, torch.bfloat16).float().transpose(0, 1)  # (N, 2 G, 2)
    groups = IN_FEATURES // 64
    scales, zeros = pairs.unbind(-1)
    low, high = (int4_codes(weight).view(OUT_FEATURES, 2, groups, 64).float() - 8).unbind(1)
    computed = (
        low * scales[:, :groups, None]
        + zeros[:, :groups, None]
        + high * scales[:, groups:, None]
        + zeros[:, groups:, None]
    )
    assert relative_error(computed.view(OUT_FEATURES, IN_FEATURES), numbers) < 1e-5


def test_the_bias_is_added_and_shapes_are_kept():
    weight, numbers = quantized_weight(4, 64)
    bias = torch.arange(OUT_FEATURES, dtype=torch.float32)
    linear = Int4CPU(weight, bias, torch.float32, Scratch(), dequantize_from=100)
    x = torch.randn(2, 3, IN_FEATURES)
    assert linear(x).shape == (2, 3, OUT_FEATURES)
    assert relative_error(linear(x), x @ numbers.T + bias) < 5e-6
    assert linear.nbytes == 256 * IN_FEATURES // 2 + 256 * (IN_FEATURES // 64) * 2 * 4


def test_the_packing_of_this_processor_is_understood():
    if packed_layout() is None:
        pytest.skip("torch packs otherwise on this processor: prompts go through the int4 kernel")
    assert [layout.is_of_this_processor() for layout in LAYOUTS].count(True) == 1


@pytest.mark.parametrize("layout", LAYOUTS, ids=["avx512", "avx2", "default"])
def test_a_layout_has_each_row_of_its_block_once(layout):
    assert sorted(layout.order) == list(range(layout.block))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the names are of x86 processors")
@pytest.mark.parametrize(("capability", "number"), [("avx2", 1), ("default", 2)])
def test_the_packing_of_lesser_processors_is_understood(capability, number):
    done = subprocess.run(
        [sys.executable, "-c", LAYOUT_OF_THIS_PROCESS],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"ATEN_CPU_CAPABILITY": capability},
    )
    assert int(done.stdout) == number


def test_a_scratch_gives_the_same_memory_again():
    scratch = Scratch()
    first = scratch.take("codes", 100, torch.float32)
    assert scratch.take("codes", 50, torch.float32).data_ptr() == first.data_ptr()
    assert scratch.take("numbers", 50, torch.float32).data_ptr() != first.data_ptr()
    assert scratch.take("codes", 200, torch.float32).numel() == 200


@pytest.mark.parametrize("bits", [4, 8])
def test_the_packing_for_cuda_is_given_the_shapes_it_takes(bits):
    weight, _ = quantized_weight(bits, 64)
    assert Int4CUDA.supports(weight)
    pairs = pairs_for_cuda(int4_codes(pad_rows(weight)))
    columns = IN_FEATURES * (2 if bits == 8 else 1)
    assert torch.equal(pairs[:OUT_FEATURES] >> 4, int4_codes(weight)[:, ::2])
    assert torch.equal(pairs[:OUT_FEATURES] & 15, int4_codes(weight)[:, 1::2])
    # the meta device checks shapes without a GPU
    packed = torch.ops.aten._convert_weight_to_int4pack(pairs.to("meta"), INNER_K_TILES)
    assert packed.shape == (256 // 8, columns // (INNER_K_TILES * 16), 32, INNER_K_TILES // 2)
    assert scales_and_zeros(pad_rows(weight), torch.bfloat16).shape == (columns // 64, 256, 2)
