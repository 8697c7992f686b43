"""float8, int8, compressed-tensors and bitsandbytes in: values, codes, what is said, refusals."""

import json
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from support.gguf_files import arrays
from support.packed_models import (
    WIDE,
    bitsandbytes_parts,
    compressed_parts,
    converted,
    float4_parts,
    float8_parts,
    int8_parts,
    write_packed,
)

from edgellm.checkpoint.quantization import Quantization
from edgellm.converters import convert
from edgellm.converters.quantizers.scaled_matrix import float8_values
from edgellm.errors import FormatError, UnsupportedModelError

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
COMPRESSED = {"quant_method": "compressed-tensors", "quantization_status": "compressed"}


def test_all_bytes_of_float8_are_those_of_mlx():
    expected = np.array(mx.from_fp8(mx.array(np.arange(256, dtype=np.uint8)), dtype=mx.float32))
    finite = np.arange(256) & 127 != 127  # MLX has no byte that is not a number
    assert np.array_equal(float8_values()[finite], expected[finite])
    assert np.isnan(float8_values()[~finite]).all()


@pytest.mark.parametrize(
    ("block", "part", "shape"),
    [
        (FP8, "weight_scale_inv", lambda outputs, inputs: (outputs // 128, inputs // 128)),
        (FP8 | {"weight_block_size": None}, "weight_scale", lambda outputs, inputs: ()),
        ({"quant_method": "fbgemm_fp8"}, "weight_scale", lambda outputs, inputs: (outputs, 1)),
        (
            COMPRESSED | {"format": "float-quantized"},
            "weight_scale",
            lambda outputs, inputs: (outputs, 1),
        ),
    ],
)
def test_float8_is_exact_unquantized_and_8_bits_otherwise(tmp_path, block, part, shape):
    parts = partial(float8_parts, part=part, shape=shape)
    values, found, _, _ = converted(tmp_path / "a", block, parts, bits=16, dtype="float32")
    for name, expected in values.items():
        assert np.array_equal(found[name], expected), name
    _, _, report, said = converted(tmp_path / "b", block, parts)
    assert report.quantization == Quantization(8, 64)
    assert max(report.errors.values()) < 0.01
    assert any("are dequantized" in text for text in said)


def test_blocks_of_float8_may_reach_over_the_end(tmp_path):
    config = WIDE | {"intermediate_size": 320}
    parts = partial(
        float8_parts,
        part="weight_scale_inv",
        shape=lambda outputs, inputs: (-(-outputs // 128), -(-inputs // 128)),
    )
    values = write_packed(tmp_path / "packed", FP8, parts, config=config)
    convert(tmp_path / "packed", tmp_path / "made", bits=16, dtype="float32")
    found = arrays(tmp_path / "made")
    for name, expected in values.items():
        assert np.array_equal(found[name], expected), name


@pytest.mark.torch
def test_float8_is_transformers_own_dequantization():
    import torch
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    codes = np.random.RandomState(3).randint(0, 127, (256, 384)).astype(np.uint8)
    scales = np.random.RandomState(4).uniform(1, 2, (2, 3)).astype(np.float32)
    expected = Fp8Dequantize(None)._dequantize_one(
        torch.tensor(codes).view(torch.float8_e4m3fn), torch.tensor(scales)
    )
    ours = float8_values()[codes] * np.repeat(np.repeat(scales, 128, 0), 128, 1)
    assert np.array_equal(ours, expected.numpy())


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (COMPRESSED | {"format": "int-quantized"}, "weight_scale"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "SCB"),
    ],
)
def test_int8_keeps_its_codes(tmp_path, block, part):
    parts = partial(int8_parts, part=part)
    values, found, report, _ = converted(tmp_path, block, parts, dtype="float32")
    assert report.quantization == Quantization(8, 128)
    for name, expected in values.items():
        # a float32 scale times a code, less 128 of it, is rounded in float32 twice
        assert np.abs(found[name] - expected).max() <= 2**-22 * np.abs(expected).max(), name


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("storage", ["U8", "BF16"])
def test_tables_of_bitsandbytes_are_exact_unquantized(tmp_path, kind, nested, storage):
    parts = partial(bitsandbytes_parts, kind=kind, nested=nested, storage=storage)
    values, found, _, _ = converted(tmp_path, NF4, parts, bits=16, dtype="float32")
    for name, expected in values.items():
        assert np.array_equal(found[name], expected), name


def test_nf4_becomes_six_bits_that_add_little(tmp_path):
    parts = partial(bitsandbytes_parts, kind="nf4", nested=True, storage="U8")
    _, _, report, said = converted(tmp_path, NF4, parts)
    assert report.quantization == Quantization(6, 64)
    # nf4's own error is about 0.09 of normally distributed weights: together within 5 % of it
    assert max(report.errors.values()) < 0.025
    assert any("7 matrices of bitsandbytes are dequantized" in text for text in said)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "group"), [(4, 128), (4, 32), (8, 256), (3, 64), (6, 128)])
def test_packed_integers_are_exact(tmp_path, bits, group, symmetric):
    parts = partial(compressed_parts, bits=bits, group=group, symmetric=symmetric)
    block = COMPRESSED | {"format": "pack-quantized"}
    values, found, report, _ = converted(tmp_path, block, parts, dtype="float32")
    assert report.quantization == Quantization(bits, min(group, 128))
    for name, expected in values.items():
        assert np.array_equal(found[name], expected), name


@pytest.mark.parametrize("symmetric", [True, False])
def test_activation_order_of_packed_integers_is_dequantized(tmp_path, symmetric):
    parts = partial(compressed_parts, bits=4, group=128, symmetric=symmetric, shuffled=True)
    block = COMPRESSED | {"format": "pack-quantized"}
    values, found, _, _ = converted(tmp_path, block, parts, bits=16, dtype="float32")
    for name, expected in values.items():
        assert np.array_equal(found[name], expected), name


@pytest.mark.torch
@pytest.mark.parametrize("symmetric", [True, False])
def test_packed_integers_are_those_that_the_package_writes(tmp_path, symmetric):
    pytest.importorskip("compressed_tensors")
    import torch
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    scheme = QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(
            num_bits=4, type="int", symmetric=symmetric, strategy="group", group_size=128
        ),
    )

    def parts(random, outputs, inputs):
        weight = torch.tensor(random.standard_normal((outputs, inputs)).astype(np.float32)) / 16
        state = {"weight": weight, "weight_scale": torch.rand(outputs, inputs // 128) / 64 + 0.01}
        if not symmetric:
            state["weight_zero_point"] = torch.tensor(
                random.randint(-8, 8, (outputs, inputs // 128)).astype(np.int8)
            )
        made = PackedQuantizationCompressor.compress(state, scheme)
        values = PackedQuantizationCompressor.decompress(made, scheme)["weight"]
        return {name: array.numpy() for name, array in made.items()}, values.numpy()

    block = COMPRESSED | {"format": "pack-quantized", "config_groups": {"group_0": {}}}
    values, found, report, _ = converted(tmp_path, block, parts, dtype="float32")
    assert report.quantization == Quantization(4, 128)
    for name, expected in values.items():
        assert np.abs(found[name] - expected).max() <= 1e-6 * np.abs(expected).max(), name


@pytest.mark.parametrize(
    ("form", "group", "divisor", "mode"),
    [
        ("mxfp4-pack-quantized", 32, None, "mxfp4"),
        ("nvfp4-pack-quantized", 16, 1.0, "nvfp4"),
    ],
)
@pytest.mark.filterwarnings("ignore:arithmetic runs in MLX's own CPU kernels")
def test_four_bit_floats_keep_their_codes(tmp_path, form, group, divisor, mode):
    parts = partial(float4_parts, group=group, divisor=divisor)
    values, found, report, said = converted(tmp_path, COMPRESSED | {"format": form}, parts)
    assert report.quantization == Quantization(4, group, mode)
    for name, expected in values.items():
        assert np.array_equal(found[name], expected), name
    assert "7 matrices keep the codes and scales of compressed-tensors" in said


def test_a_scale_of_the_whole_matrix_is_8_bits_or_exact_unquantized(tmp_path):
    parts = partial(float4_parts, group=16, divisor=37.5)
    block = COMPRESSED | {"format": "nvfp4-pack-quantized"}
    values, found, _, said = converted(tmp_path / "a", block, parts, bits=16, dtype="float32")
    for name, expected in values.items():
        assert np.array_equal(found[name], expected), name
    assert any("not rounded here" in text for text in said)
    _, _, report, said = converted(tmp_path / "b", block, parts)
    assert report.quantization == Quantization(8, 32)
    assert max(report.errors.values()) < 0.01
    assert any("7 matrices of compressed-tensors are dequantized" in text for text in said)


@pytest.mark.filterwarnings("ignore:arithmetic runs in MLX's own CPU kernels")
def test_float8_with_a_power_of_two_a_group_keeps_its_codes(tmp_path):
    def parts(random, outputs, inputs):
        made, values = float8_parts(
            random, outputs, inputs, part="weight_scale", shape=lambda rows, columns: ()
        )
        exponents = random.randint(110, 116, (outputs, inputs // 32)).astype(np.uint8)
        scales = np.repeat(np.exp2(exponents.astype(np.float32) - 127), 32, axis=1)
        return made | {"weight_scale": exponents}, values / made["weight_scale"] * scales

    block = COMPRESSED | {"format": "mxfp8-quantized"}
    values, found, report, _ = converted(tmp_path, block, parts)
    assert report.quantization == Quantization(8, 32, "mxfp8")
    for name, expected in values.items():
        assert np.allclose(found[name], expected, rtol=1e-6, atol=0), name


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (COMPRESSED | {"format": "marlin-24"}, "marlin-24"),
        (
            COMPRESSED
            | {"format": "pack-quantized", "sparsity_config": {"format": "sparse-bitmask"}},
            "sparse",
        ),
        ({"quant_method": "hqq"}, "hqq"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path, block, text):
    parts = partial(compressed_parts, bits=4, group=128, symmetric=True)
    write_packed(tmp_path / "packed", block, parts)
    with pytest.raises(UnsupportedModelError, match=text) as refusal:
        convert(tmp_path / "packed", tmp_path / "made")
    assert "convert the model that it was made from" in refusal.value.hint


def test_a_state_that_lies_is_refused(tmp_path):
    def parts(random, outputs, inputs):
        made, values = bitsandbytes_parts(
            random, outputs, inputs, kind="nf4", nested=True, storage="U8"
        )
        text = json.dumps({"shape": [outputs, inputs * 2], "blocksize": 64})
        made["weight.quant_state.bitsandbytes__nf4"] = np.frombuffer(text.encode(), np.uint8)
        return made, values

    write_packed(tmp_path / "packed", NF4, parts)
    with pytest.raises(FormatError, match="other bytes than its shape needs"):
        convert(tmp_path / "packed", tmp_path / "made")
