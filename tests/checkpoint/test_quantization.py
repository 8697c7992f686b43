"""Which matrices are quantized and how, as MLX and mlx-lm understand it."""

from dataclasses import dataclass

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx import nn

from edgellm.checkpoint.quantization import (
    AFFINE_BITS,
    GROUP_SIZES,
    MODES,
    QUANTIZED_PARTS,
    Quantization,
    chosen_quantization,
    quantization_block,
    quantization_of,
    stored_quantization,
)
from edgellm.errors import FormatError, UnsupportedModelError

AFFINE = [Quantization(bits, group) for bits in AFFINE_BITS for group in GROUP_SIZES]
FORMS = AFFINE + [
    Quantization(*numbers, mode) for mode, numbers in MODES.items() if mode != "affine"
]
CODES = {
    mx.uint32: "U32",
    mx.uint8: "U8",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.float32: "F32",
}


@dataclass
class Stored:
    dtype: str
    shape: tuple[int, ...]


def made_by_mlx(form, rows, columns, dtype=mx.float16):
    """The parts that MLX makes of a matrix."""
    arrays = mx.quantize(mx.ones((rows, columns), dtype), form.group_size, form.bits, form.mode)
    return {
        part: Stored(CODES[array.dtype], array.shape)
        for part, array in zip(QUANTIZED_PARTS, arrays, strict=False)
    }


def config(form, **exceptions):
    return {"quantization": form.as_config() | exceptions}


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_shapes_and_types_are_those_of_mlx(form, dtype):
    made = made_by_mlx(form, 3, 256, dtype)
    assert {part: (item.dtype, item.shape) for part, item in made.items()} == form.stored(
        3, 256, CODES[dtype]
    )
    assert stored_quantization(config(form), "a", made, (3, 256)) == form


def test_every_form_that_mlx_has_is_known():
    for bits in range(2, 17):  # MLX has a 1-bit form too, which nobody ships
        for group in (8, 16, 32, 64, 128, 256):
            for mode in MODES:
                try:
                    mx.eval(mx.quantize(mx.ones((1, 512)), group, bits, mode))
                except ValueError:
                    assert Quantization(bits, group, mode) not in FORMS
                else:
                    assert Quantization(bits, group, mode) in FORMS


def test_exceptions_come_before_the_default():
    said = config(
        Quantization(4, 64),
        **{
            "model.layers.0.mlp.down_proj": {"bits": 6, "group_size": 32},
            "model.layers.1.mlp.down_proj": False,
            "model.layers.2.mlp.down_proj": True,
            "lm_head": {"group_size": 32, "bits": 8, "mode": "mxfp8"},
        },
    )
    assert quantization_of(said, "model.layers.0.mlp.down_proj") == Quantization(6, 32)
    assert quantization_of(said, "model.layers.1.mlp.down_proj") is None
    assert quantization_of(said, "model.layers.2.mlp.down_proj") == Quantization(4, 64)
    assert quantization_of(said, "model.layers.3.mlp.down_proj") == Quantization(4, 64)
    assert quantization_of(said, "lm_head") == Quantization(8, 32, "mxfp8")
    assert quantization_of({}, "lm_head") is None


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_alone_means_its_own_numbers_as_in_mlx(mode):
    layer = nn.Linear(256, 2).to_quantized(mode=mode)
    assert quantization_of({"quantization": {"mode": mode}}, "a") == Quantization(
        layer.bits, layer.group_size, mode
    )


@pytest.mark.parametrize("mode", MODES)
def test_null_means_left_out_as_mlx_lms_mixed_recipes_write_it(mode):
    layer = nn.Linear(256, 2).to_quantized(mode=mode, group_size=None)
    exception = {"group_size": None, "bits": layer.bits, "mode": mode}
    block = {"group_size": 64, "bits": 4, "a": exception}
    assert quantization_of({"quantization": block}, "a") == Quantization(
        layer.bits, layer.group_size, mode
    )


def test_the_second_name_of_the_block_is_read():
    block = {"group_size": 128, "bits": 2}
    assert quantization_of({"quantization_config": block}, "a") == Quantization(2, 128)
    assert quantization_of(
        {"quantization_config": block, "quantization": {"bits": 8}}, "a"
    ) == Quantization(8, 64)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors", 7])
@pytest.mark.parametrize("numbers", [{}, {"group_size": 128, "bits": 4}])
def test_what_other_libraries_quantized_is_named(method, numbers):
    with pytest.raises(UnsupportedModelError, match=str(method)):
        stored_quantization(
            {"quantization_config": {"quant_method": method} | numbers}, "a", {}, (4, 128)
        )


@pytest.mark.parametrize("method", [["gptq"], {"name": "gptq"}])
def test_a_method_that_is_no_text_is_foreign_and_no_crash(method):
    config = {"quantization_config": {"quant_method": method, "group_size": 64, "bits": 4}}
    with pytest.raises(UnsupportedModelError, match="which edgellm does not read"):
        quantization_of(config, "a")


@pytest.mark.parametrize(
    "block",
    [
        [],
        "4bit",
        {"bits": 7},
        {"bits": "4"},
        {"bits": True},
        {"bits": 4.0},
        {"bits": 4, "group_size": 48},
        {"mode": "mxfp4", "bits": 8},
        {"mode": "nvfp4", "group_size": 32},
        {"mode": "q4_0"},
        {"mode": ["affine"]},
        {"bits": 10**30},
        {"a": 4},
        {"a": {"bits": [4]}},
    ],
)
def test_a_damaged_block_is_refused(block):
    with pytest.raises(FormatError, match="quantization"):
        quantization_of({"quantization": block}, "a")


def test_shapes_decide_where_the_config_names_no_path():
    made = made_by_mlx(Quantization(8, 32), 4, 128)
    assert stored_quantization(config(Quantization(4, 64)), "a", made, (4, 128)) == Quantization(
        8, 32
    )
    assert stored_quantization({}, "a", made, (4, 128)) == Quantization(8, 32)
    with pytest.raises(FormatError, match="does not fit"):
        stored_quantization(
            config(Quantization(8, 32), a={"bits": 4, "group_size": 32}), "a", made, (4, 128)
        )


def test_an_unquantized_matrix_is_one_whatever_the_config_says():
    plain = {"weight": Stored("BF16", (4, 128))}
    assert stored_quantization(config(Quantization(4, 64)), "a", plain, (4, 128)) is None
    for wrong in (
        Stored("BF16", (128, 4)),
        Stored("U32", (4, 128)),
        Stored("I64", (4, 128)),
        Stored("BF16", (512,)),
    ):
        with pytest.raises(FormatError, match=r"'a\.weight'"):
            stored_quantization({}, "a", {"weight": wrong}, (4, 128))
    with pytest.raises(FormatError, match="missing"):
        stored_quantization({}, "a", {}, (4, 128))


@given(
    st.sampled_from(FORMS),
    st.sampled_from(["weight", "scales", "biases"]),
    st.sampled_from(["U32", "F16", "F32", "U8", "I8", None]),
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 16, 32, 128]), min_size=1, max_size=3).map(tuple),
)
def test_parts_that_do_not_fit_are_refused(form, part, dtype, shape):
    """A changed part is either refused, or is what MLX makes of the form that is then reported."""
    parts = {name: Stored(*item) for name, item in form.stored(4, 128, "F16").items()}
    if dtype is None:
        parts.pop(part, None)
    else:
        parts[part] = Stored(dtype, shape)
    try:
        found = stored_quantization(config(form), "a", parts, (4, 128))
    except FormatError:
        return
    if found is None:
        assert parts == {"weight": Stored(dtype, (4, 128))} or "scales" not in parts
    else:
        scales = parts["scales"].dtype
        assert {name: (item.dtype, item.shape) for name, item in parts.items()} == found.stored(
            4, 128, scales
        )


def test_the_largest_group_that_divides_is_chosen():
    assert chosen_quantization(4096, 4, 64) == Quantization(4, 64)
    assert chosen_quantization(288, 4, 64) == Quantization(4, 32)
    assert chosen_quantization(192, 4, 128) == Quantization(4, 64)
    assert chosen_quantization(4096, 8, 32) == Quantization(8, 32)
    assert chosen_quantization(100, 4, 64) is None
    assert chosen_quantization(4096, 16, 64) is None


def test_the_block_names_only_what_differs():
    forms = {"b": Quantization(4, 32), "a": None, "c": Quantization(4, 64)}
    block = quantization_block(Quantization(4, 64), forms)
    assert block == {
        "group_size": 64,
        "bits": 4,
        "mode": "affine",
        "a": False,
        "b": {"group_size": 32, "bits": 4, "mode": "affine"},
    }
    assert {path: quantization_of({"quantization": block}, path) for path in forms} == forms
