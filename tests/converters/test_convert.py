"""Conversions of random models of every kind, against MLX, mlx-lm and transformers."""

import json
import threading
from collections import defaultdict

import mlx.core as mx
import numpy as np
import pytest
from support.folders import (
    LLAMA,
    PROMPT,
    change,
    changed_files,
    logits_by_mlx_lm,
    saved_by_mlx_lm,
    tensors_of,
)
from support.tiny import CONFIGS, random_tensors, write_model
from support.torch_files import write_arrays

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.folder import layer_file, open_folder
from edgellm.checkpoint.quantization import AFFINE_BITS, GROUP_SIZES, Quantization
from edgellm.checkpoint.safetensors_file import read_header
from edgellm.converters import convert
from edgellm.errors import FormatError


def same(left, right):
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and bool(mx.array_equal(left, right))
    )


def test_a_layer_is_one_aligned_file_with_its_stacks_side_by_side(tmp_path):
    convert(write_model(tmp_path / "source", LLAMA, dtype=mx.bfloat16), tmp_path / "made")
    orders, layers = set(), LLAMA["num_hidden_layers"]
    for index in range(layers):
        tensors, _ = read_header(tmp_path / "made" / layer_file(index))
        assert min(tensor.offset for tensor in tensors.values()) == 16384
        assert all(tensor.offset % 16 == 0 for tensor in tensors.values())
        names = [name.removeprefix(f"model.layers.{index}.") for name in tensors]
        orders.add(tuple(names))
        for part in ("weight", "scales", "biases"):
            at = names.index(f"self_attn.q_proj.{part}")
            assert names[at : at + 3] == [f"self_attn.{letter}_proj.{part}" for letter in "qkv"]
            assert names[names.index(f"mlp.gate_proj.{part}") + 1] == f"mlp.up_proj.{part}"
    assert len(orders) == 1
    files = {file.name for file in (tmp_path / "made").glob("*.safetensors")}
    assert files == {
        *(layer_file(index) for index in range(layers)),
        "model-embedding.safetensors",
        "model-head.safetensors",
    }
    index = json.loads((tmp_path / "made" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == tensors_of(tmp_path / "made").keys()
    assert changed_files(tmp_path / "made") == []


def test_everything_but_programs_goes_along(tmp_path):
    source = write_model(tmp_path / "source", LLAMA, generation_config={"eos_token_id": [1, 4]})
    for name in (
        "LICENSE",
        "USE_POLICY.md",
        "chat_template.jinja",
        "modeling.py",
        "README.md",
        "added_tokens.json",
    ):
        (source / name).write_text("{}")
    convert(source, tmp_path / "made")
    made = {file.name for file in (tmp_path / "made").iterdir()}
    assert made >= {
        "LICENSE",
        "USE_POLICY.md",
        "chat_template.jinja",
        "added_tokens.json",
        "tokenizer.json",
    }
    assert not made & {"modeling.py", "README.md"}
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "made" / name).read_bytes() == (source / name).read_bytes()
    assert open_folder(tmp_path / "made").generation_config == {"eos_token_id": [1, 4]}


# which mlx-lm does not have
@pytest.mark.parametrize("kind", sorted(CONFIGS.keys() - {"qwen3-biases"}))
@pytest.mark.parametrize("bits", [4, 16])
def test_every_kind_opens_in_mlx_lm_with_the_logits_of_its_own_conversion(tmp_path, kind, bits):
    source = write_model(tmp_path / "source", CONFIGS[kind])
    report = convert(source, tmp_path / "ours", bits=bits, group_size=32 if bits == 4 else None)
    assert report.exceptions == {}
    read_checkpoint(tmp_path / "ours")
    # mlx-lm takes defaults that the source does not mean: say them, as the converted folder does.
    said = json.loads((tmp_path / "ours" / "config.json").read_text())
    plain = {key: value for key, value in said.items() if "quantization" not in key}
    (source / "config.json").write_text(json.dumps(plain))
    how = {"group_size": 32, "bits": 4} if bits == 4 else {}
    saved_by_mlx_lm(source, tmp_path / "theirs", **how)
    ours, theirs = tensors_of(tmp_path / "ours"), tensors_of(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    assert all(same(ours[name], theirs[name]) for name in ours)
    assert np.array_equal(
        logits_by_mlx_lm(tmp_path / "ours"), logits_by_mlx_lm(tmp_path / "theirs")
    )


@pytest.mark.torch
@pytest.mark.parametrize("kind", CONFIGS)
def test_an_unquantized_folder_is_the_same_model_to_transformers(tmp_path, kind):
    import torch
    from transformers import AutoModelForCausalLM

    source = write_model(tmp_path / "source", CONFIGS[kind], dtype=mx.float32)
    convert(source, tmp_path / "made", bits=16)
    logits = []
    for path in (source, tmp_path / "made"):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        with torch.no_grad():
            logits.append(model(torch.tensor([PROMPT * 3])).logits)
    assert torch.equal(*logits)


DTYPES = ["float16", "bfloat16", "float32"]
CODED = [(bits, dtype) for bits in (4, 8) for dtype in DTYPES]
CODED += [(bits, DTYPES[bits % 3]) for bits in AFFINE_BITS if bits not in (4, 8)]


@pytest.mark.parametrize(("bits", "dtype"), CODED)
def test_codes_are_those_of_mlx_and_eight_bits_are_closer(tmp_path, bits, dtype):
    config = LLAMA | {"num_hidden_layers": 1}
    source = write_model(tmp_path / "source", config, dtype=getattr(mx, dtype))
    report = convert(source, tmp_path / "made", bits=bits, report=True)
    given, made = tensors_of(source), tensors_of(tmp_path / "made")
    for path, error in report.errors.items():
        weight = given[f"{path}.weight"]
        parts = [made[f"{path}.{part}"] for part in ("weight", "scales", "biases")]
        theirs = mx.quantize(weight, 64, bits)
        assert all(same(left, right) for left, right in zip(parts[1:], theirs[1:], strict=True))
        assert bits == 8 or same(parts[0], theirs[0])
        measured = [relative_error(weight, three, bits) for three in (parts, theirs)]
        assert error == pytest.approx(measured[0], rel=1e-4)
        assert measured[0] <= measured[1] * (1 + 1e-6)
        if bits == 8 and dtype == "bfloat16":
            assert measured[0] < 0.9 * measured[1]
    assert report.quantization == Quantization(bits, 64)
    assert report.dtype == dtype
    assert {str(tensor.dtype) for name, tensor in made.items() if tensor.dtype != mx.uint32} == {
        f"mlx.core.{dtype}"
    }


def relative_error(weight, parts, bits):
    weight, (codes, scales, biases) = np.array(weight.astype(mx.float32), np.float64), parts
    restored = mx.dequantize(codes, scales.astype(mx.float32), biases.astype(mx.float32), 64, bits)
    return np.sqrt(np.sum((np.array(restored, np.float64) - weight) ** 2) / np.sum(weight**2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_casts_everything(tmp_path, dtype):
    source = write_model(tmp_path / "source", LLAMA, dtype=mx.float32)
    convert(source, tmp_path / "made", bits=16, dtype=dtype)
    given, made = tensors_of(source), tensors_of(tmp_path / "made")
    assert all(same(made[name], given[name].astype(getattr(mx, dtype))) for name in given)
    assert json.loads((tmp_path / "made" / "config.json").read_text())["torch_dtype"] == dtype


def test_a_mixed_source_becomes_the_type_of_most_of_it(tmp_path):
    source = write_model(tmp_path / "source", LLAMA, dtype=mx.bfloat16)
    change(
        source, lambda tensors: tensors.update({"model.norm.weight": mx.ones((64,), mx.float32)})
    )
    assert convert(source, tmp_path / "made", bits=16).dtype == "bfloat16"
    assert {tensor.dtype for tensor in tensors_of(tmp_path / "made").values()} == {mx.bfloat16}


def test_rows_that_fit_no_group_stay_and_the_folder_says_so(tmp_path):
    odd = LLAMA | {
        "intermediate_size": 100,
        "hidden_size": 96,
        "head_dim": 24,
        "num_hidden_layers": 1,
    }
    report = convert(write_model(tmp_path / "source", odd, dtype=mx.float16), tmp_path / "made")
    block = json.loads((tmp_path / "made" / "config.json").read_text())["quantization"]
    assert block["model.layers.0.mlp.down_proj"] is False
    assert block["model.layers.0.mlp.up_proj"] == {"bits": 4, "group_size": 32, "mode": "affine"}
    assert report.exceptions["model.layers.0.mlp.down_proj"] is None
    read_checkpoint(tmp_path / "made")
    made = tensors_of(tmp_path / "made")
    assert same(
        made["model.layers.0.mlp.down_proj.weight"],
        tensors_of(tmp_path / "source")["model.layers.0.mlp.down_proj.weight"],
    )
    assert np.isfinite(logits_by_mlx_lm(tmp_path / "made")).all()


def test_the_largest_group_wished_for_is_taken(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    for group in GROUP_SIZES:
        convert(source, tmp_path / str(group), group_size=group)
        scales = tensors_of(tmp_path / str(group))
        assert scales["model.layers.0.mlp.down_proj.scales"].shape == (64, 128 // group)
        assert scales["model.layers.0.mlp.up_proj.scales"].shape == (128, 64 // min(group, 64))


@pytest.mark.parametrize(
    ("mode", "bits", "group"),
    [
        ("affine", 4, 64),
        ("affine", 3, 32),
        ("affine", 8, 64),
        ("mxfp4", 4, 32),
        ("mxfp8", 8, 32),
        ("nvfp4", 4, 16),
    ],
)
def test_a_folder_by_mlx_lm_is_taken_bit_by_bit(tmp_path, mode, bits, group):
    from mlx_lm.convert import convert as convert_by_mlx_lm

    source = write_model(tmp_path / "source", CONFIGS["qwen3"], dtype=mx.bfloat16)
    convert_by_mlx_lm(
        str(source),
        str(tmp_path / "theirs"),
        quantize=True,
        q_group_size=group,
        q_bits=bits,
        q_mode=mode,
    )
    report = convert(tmp_path / "theirs", tmp_path / "ours")
    theirs, ours = tensors_of(tmp_path / "theirs"), tensors_of(tmp_path / "ours")
    assert theirs.keys() == ours.keys()
    assert all(same(theirs[name], ours[name]) for name in theirs)
    assert report.quantization == Quantization(bits, group, mode)
    assert np.array_equal(
        logits_by_mlx_lm(tmp_path / "ours"), logits_by_mlx_lm(tmp_path / "theirs")
    )
    assert (tmp_path / "ours" / layer_file(2)).exists()

    convert(tmp_path / "theirs", tmp_path / "plain", bits=16)
    plain = tensors_of(tmp_path / "plain")
    assert plain.keys() == {name for name in theirs if not name.endswith((".scales", ".biases"))}
    name = "model.layers.1.mlp.down_proj"
    parts = [
        theirs[f"{name}.{part}"]
        for part in ("weight", "scales", "biases")
        if f"{name}.{part}" in theirs
    ]
    wide = [
        parts[0],
        *(part.astype(mx.float32) if mode == "affine" else part for part in parts[1:]),
    ]
    restored = mx.dequantize(*wide, group_size=group, bits=bits, mode=mode, dtype=mx.float32)
    assert same(plain[f"{name}.weight"], restored.astype(mx.bfloat16))


def test_mixed_recipes_of_mlx_lm_are_kept(tmp_path):
    from mlx_lm.convert import convert as convert_by_mlx_lm

    source = write_model(tmp_path / "source", LLAMA, dtype=mx.float16)
    convert_by_mlx_lm(
        str(source),
        str(tmp_path / "theirs"),
        quantize=True,
        q_group_size=64,
        quant_predicate="mixed_3_6",
    )
    report = convert(tmp_path / "theirs", tmp_path / "ours")
    assert Quantization(6, 64) in report.exceptions.values()
    expected = logits_by_mlx_lm(tmp_path / "theirs")
    assert np.array_equal(logits_by_mlx_lm(tmp_path / "ours"), expected)
    block = json.loads((tmp_path / "ours" / "config.json").read_text())["quantization"]
    (tmp_path / "theirs" / "config.json").write_text(
        json.dumps(
            json.loads((tmp_path / "theirs" / "config.json").read_text())
            | {"quantization": {"bits": 3, "group_size": 64}}
        )
    )
    convert(tmp_path / "theirs", tmp_path / "inferred")  # no exceptions said: the shapes say them
    assert json.loads((tmp_path / "inferred" / "config.json").read_text())["quantization"] != block
    assert np.array_equal(logits_by_mlx_lm(tmp_path / "inferred"), expected)


def test_what_is_quantized_is_quantized_again_and_the_error_said(tmp_path):
    source = write_model(tmp_path / "source", LLAMA | {"num_hidden_layers": 1})
    convert(source, tmp_path / "four")
    convert(tmp_path / "four", tmp_path / "again", bits=4, group_size=64)
    assert (tmp_path / "again" / layer_file(0)).read_bytes() == (
        tmp_path / "four" / layer_file(0)
    ).read_bytes()
    four, steps = tensors_of(tmp_path / "four"), []
    for bits, group, low, high in ((8, 64, 0, 0.01), (4, 32, 0.01, 0.2), (2, 64, 0.2, 0.7)):
        name = f"{bits} {group}"
        report = convert(
            tmp_path / "four", tmp_path / name, bits=bits, group_size=group, progress=steps.append
        )
        assert any(step.message and "adds errors" in step.message for step in steps)
        assert report.quantization == Quantization(bits, group)
        made = tensors_of(tmp_path / name)
        for path, error in report.errors.items():
            given, parts = (
                [tensors[f"{path}.{part}"] for part in ("weight", "scales", "biases")]
                for tensors in (four, made)
            )
            weight, restored = mx.dequantize(*given, 64, 4), mx.dequantize(*parts, group, bits)
            assert error == pytest.approx(
                float(mx.sqrt(mx.square(weight - restored).sum() / mx.square(weight).sum())),
                rel=1e-3,
            )
            assert low <= error < high
        assert len(report.errors) == len([name for name in four if name.endswith(".scales")])


def test_shards_and_pytorch_files_make_the_same_bytes(tmp_path):
    made = defaultdict(set)
    sources = {
        "one": write_model(tmp_path / "one", LLAMA),
        "three": write_model(tmp_path / "three", LLAMA, shards=3),
        "no index": write_model(tmp_path / "no index", LLAMA, shards=2),
        "torch": write_model(tmp_path / "torch", LLAMA),
        "torch in two": write_model(tmp_path / "torch in two", LLAMA),
    }
    (sources["no index"] / "model.safetensors.index.json").unlink()
    values = {name: value.astype(np.float32) for name, value in random_tensors(LLAMA).items()}
    for name in ("torch", "torch in two"):
        (sources[name] / "model.safetensors").unlink()
    write_arrays(sources["torch"] / "pytorch_model.bin", values)
    weight_map = {}
    for part in range(2):
        names = sorted(values)[part::2]
        file = f"pytorch_model-{part + 1:05d}-of-00002.bin"
        write_arrays(sources["torch in two"] / file, {name: values[name] for name in names})
        weight_map |= dict.fromkeys(names, file)
    (sources["torch in two"] / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": weight_map})
    )
    for name, source in sources.items():
        convert(source, tmp_path / f"{name} made")
        for file in (tmp_path / f"{name} made").iterdir():
            made[file.name].add(file.read_bytes())
    assert all(len(contents) == 1 for contents in made.values())
    (sources["torch in two"] / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(FormatError, match="00002-of-00002"):
        convert(sources["torch in two"], tmp_path / "half")


def test_a_conversion_may_run_in_any_thread(tmp_path):
    source = write_model(tmp_path / "source", LLAMA)
    convert(source, tmp_path / "here")
    thread = threading.Thread(target=convert, args=(source, tmp_path / "there"))
    thread.start()
    thread.join()
    for file in (tmp_path / "here").iterdir():
        assert (tmp_path / "there" / file.name).read_bytes() == file.read_bytes()
