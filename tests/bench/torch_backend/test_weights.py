"""Quantized weights are read as MLX reads them."""

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="torch is not installed")

from support.quantized_weights import quantized_weight


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 8])
def test_codes_are_read_as_mlx_reads_them(bits, group_size):
    weight, numbers = quantized_weight(bits, group_size)
    assert torch.equal(weight.dequantize(torch.float32), numbers)
