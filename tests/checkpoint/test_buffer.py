"""A buffer's arrays show what lies in its memory, and stacks are their members' bytes."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny

from edgellm.checkpoint.buffer import PAGE, WeightBuffer, place_tensors
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.safetensors_file import TensorInfo
from edgellm.checkpoint.tensor_order import ALIGNMENT, STACKS, stack_runs, tensor_order
from edgellm.converters import convert
from edgellm.errors import UnsupportedModelError


def fill(buffer, extents):
    """Read a layer into a buffer, plainly."""
    for extent in extents:
        with extent.file.open("rb") as file:
            file.seek(extent.offset)
            buffer.memory[extent.buffer_offset : extent.buffer_offset + extent.nbytes] = file.read(
                extent.nbytes
            )


def stored_tensors(folder, index):
    """One layer's tensors as MLX itself loads them, by the name inside the layer."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= mx.load(str(file))
    prefix = f"model.layers.{index}."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


@pytest.fixture(params=["as it is", "4-bit", "8-bit", "shards"])
def folder(request, tiny_folder, tmp_path):
    if request.param == "as it is":
        return tiny_folder("llama-biases", dtype=mx.bfloat16)
    if request.param == "shards":
        return tiny_folder("qwen3", dtype=mx.float16, shards=3)
    convert(
        tiny_folder("qwen2", dtype=mx.float16),
        tmp_path / "made",
        bits=int(request.param[0]),
        group_size=32,
    )
    return tmp_path / "made"


def test_every_tensor_and_every_stack_shows_what_was_read(folder):
    checkpoint = read_checkpoint(folder)
    buffer = WeightBuffer(max(layer.layout.nbytes for layer in checkpoint.layers))
    seen = {}
    for index, layer in enumerate(checkpoint.layers):
        fill(buffer, layer.extents)
        arrays = buffer.arrays(layer.layout)
        assert seen.setdefault(layer.layout, arrays) is arrays, "views are made once"
        expected = stored_tensors(folder, index)
        for stack, members in STACKS.items():
            for part in ("weight", "scales", "biases", "bias"):
                run = [
                    expected[f"{member}.{part}"]
                    for member in members
                    if f"{member}.{part}" in expected
                ]
                if len(run) == len(members) > 1:
                    expected[f"{stack}.{part}"] = mx.concatenate(run)
        assert arrays.keys() == expected.keys()
        for name, array in arrays.items():
            assert array.dtype == expected[name].dtype
            assert mx.array_equal(array, expected[name]), name


def test_a_buffer_is_aligned_and_never_moves():
    for nbytes in (1, PAGE, PAGE + 1, 100_000):
        buffer = WeightBuffer(nbytes)
        address = np.frombuffer(buffer.memory, np.uint8).ctypes.data
        assert address % PAGE == 0
        assert len(buffer.memory) == buffer.nbytes >= nbytes
        assert buffer.nbytes % PAGE == 0


def test_arithmetic_follows_what_is_written(tiny_folder):
    """MLX cannot see the write: the product of the same array is another one afterwards."""
    layer = read_checkpoint(tiny_folder("llama-2")).layers
    buffer = WeightBuffer(layer[0].layout.nbytes)
    weight = buffer.arrays(layer[0].layout)["self_attn.qkv_proj.weight"]
    x = mx.random.normal((1, weight.shape[1]), key=mx.random.key(1))
    for index in (0, 1, 0):
        fill(buffer, layer[index].extents)
        expected = stored_tensors(tiny_folder("llama-2"), index)
        stacked = mx.concatenate([expected[f"self_attn.{name}_proj.weight"] for name in "qkv"])
        assert mx.array_equal(x @ weight.T, x @ stacked.T)


names = [
    f"{member}.{part}"
    for members in STACKS.values()
    for member in members
    for part in ("weight", "scales", "biases", "bias")
]
layers = st.dictionaries(
    st.sampled_from([*names, "input_layernorm.weight", "self_attn.q_norm.weight"]),
    st.tuples(
        st.sampled_from(["F16", "BF16", "F32", "U32", "U8"]), st.integers(1, 40), st.integers(1, 9)
    ),
    min_size=1,
)


@given(layers, st.randoms(use_true_random=False))
def test_any_layer_can_be_laid_out(tmp_path_factory, sizes, random):
    """Tensors do not overlap, are aligned as far as their stacks allow, and get their own bytes."""
    file = tmp_path_factory.getbasetemp() / "any-layer.bin"
    widths = {"F16": 2, "BF16": 2, "F32": 4, "U32": 4, "U8": 1}
    tensors, offset = {}, 0
    for name in random.sample(sorted(sizes), len(sizes)):
        dtype, rows, columns = sizes[name]
        offset += random.choice([0, 0, 3, 16])
        nbytes = rows * columns * widths[dtype]
        tensors[name] = TensorInfo(
            name=name, dtype=dtype, shape=(rows, columns), file=file, offset=offset, nbytes=nbytes
        )
        offset += nbytes
    content = np.random.RandomState(len(tensors)).randint(0, 256, offset, np.uint8)
    file.write_bytes(content.tobytes())
    layout, extents = place_tensors(tensors)
    followers = {name for run in stack_runs(tensors) for name in run[1:]}
    end = 0
    for placement in layout.placements:
        assert placement.offset >= end
        end = placement.offset + tensors[placement.name].nbytes
        assert placement.offset % ALIGNMENT == 0 or placement.name in followers
    assert end == layout.nbytes
    assert [placement.name for placement in layout.placements] == tensor_order(
        {name: tensor.nbytes for name, tensor in tensors.items()}
    )
    memory = np.zeros(layout.nbytes, np.uint8)
    for extent in extents:
        memory[extent.buffer_offset : extent.buffer_offset + extent.nbytes] = content[
            extent.offset : extent.offset + extent.nbytes
        ]
    for placement in layout.placements:
        tensor = tensors[placement.name]
        place = slice(placement.offset, placement.offset + tensor.nbytes)
        assert np.array_equal(memory[place], content[tensor.offset : tensor.offset + tensor.nbytes])


def test_what_no_kernel_reads_is_refused(tmp_path):
    tensor = TensorInfo(
        name="x", dtype="F64", shape=(2,), file=tmp_path / "x.safetensors", offset=0, nbytes=16
    )
    with pytest.raises(UnsupportedModelError, match="stored as F64"):
        place_tensors({"input_layernorm.weight": tensor})


def test_the_order_of_a_layers_tensors():
    """Matrices with the same input are neighbours; what would misalign the others comes last."""
    sizes = {
        name: 4 * shape[0] * (shape[1] if len(shape) == 2 else 1)
        for name, shape in layer_shapes().items()
    }
    order = tensor_order(sizes)
    assert sorted(order) == sorted(sizes)
    for run in stack_runs(sizes):
        start = order.index(run[0])
        assert order[start : start + len(run)] == run
    odd = tensor_order(sizes | {"self_attn.k_proj.weight": 24})
    assert odd[-3:] == [f"self_attn.{name}_proj.weight" for name in "qkv"]


def layer_shapes():
    prefix = "model.layers.0."
    shapes = tiny.tensor_shapes(tiny.CONFIGS["llama-biases"])
    return {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }
