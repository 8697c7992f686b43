"""LoRA and DoRA merged by the converter: against plain arithmetic and PEFT's own merge."""

import json

import mlx.core as mx
import numpy as np
import pytest
from support.adapters import (
    LLAMA,
    PATHS,
    RANK,
    TIED,
    merged,
    peft_tensors,
    trained_by_peft,
    write_peft,
)
from support.folders import tensors_of
from support.tiny import random_tensors, write_model
from support.torch_files import write_arrays

from edgellm.converters import convert


@pytest.mark.parametrize(
    ("config", "scales"),
    [
        ({}, [4.0] * 4),
        ({"use_rslora": True}, [8.0] * 4),
        ({"lora_alpha": 1}, [0.25] * 4),
        ({"alpha_pattern": {"q_proj": 2, "layers.1.self_attn.v_proj": 6}}, [0.5, 1.5, 4.0, 4.0]),
        ({"fan_in_fan_out": True}, [4.0] * 4),  # which PEFT itself ignores for linear layers
    ],
)
def test_pefts_adapters_are_merged(tmp_path, config, scales):
    tensors = peft_tensors()
    adapter = write_peft(tmp_path / "adapter", tensors, **config)
    report = convert(
        write_model(tmp_path / "base", LLAMA), tmp_path / "made", bits=16, adapter=adapter
    )
    made = tensors_of(tmp_path / "made")
    assert report.merged == 4
    for path, scale in zip(PATHS, scales, strict=True):
        assert np.allclose(
            np.array(made[f"{path}.weight"]), merged(path, tensors, scale), rtol=1e-5, atol=1e-6
        )
    for name, values in random_tensors(LLAMA).items():
        if name.removesuffix(".weight") not in PATHS:
            assert np.array_equal(np.array(made[name]), values.astype(np.float32))


def test_an_adapter_saved_by_torch_is_read(tmp_path):
    adapter = write_peft(tmp_path / "adapter", peft_tensors())
    convert(write_model(tmp_path / "base", LLAMA), tmp_path / "made", adapter=adapter)
    (adapter / "adapter_model.safetensors").unlink()
    write_arrays(
        adapter / "adapter_model.bin",
        {f"base_model.model.{name}": value for name, value in peft_tensors().items()},
    )
    convert(tmp_path / "base", tmp_path / "again", adapter=adapter)
    for file in (tmp_path / "made").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_sixteen_bit_bases_are_rounded_once(tmp_path, dtype):
    tensors = peft_tensors()
    adapter = write_peft(tmp_path / "adapter", tensors)
    convert(
        write_model(tmp_path / "base", LLAMA, dtype=dtype),
        tmp_path / "made",
        bits=16,
        adapter=adapter,
    )
    base, made = tensors_of(tmp_path / "base"), tensors_of(tmp_path / "made")
    for path in PATHS:
        weight = np.array(base[f"{path}.weight"].astype(mx.float32))
        exact = (
            weight
            + np.float32(4) * tensors[f"{path}.lora_B.weight"] @ tensors[f"{path}.lora_A.weight"]
        )
        assert made[f"{path}.weight"].dtype == dtype
        assert float(mx.mean(made[f"{path}.weight"] == mx.array(exact).astype(dtype))) > 0.999


def test_dora_gives_each_row_its_length(tmp_path):
    tensors, lengths = peft_tensors(PATHS[:2]), {}
    for path in PATHS[:2]:
        lengths[path] = np.linspace(
            0.5, 2, random_tensors(LLAMA)[f"{path}.weight"].shape[0]
        ).astype(np.float32)
    extra = {f"{path}.lora_magnitude_vector": values for path, values in lengths.items()}
    adapter = write_peft(tmp_path / "adapter", tensors | extra, use_dora=True)
    convert(write_model(tmp_path / "base", LLAMA), tmp_path / "made", bits=16, adapter=adapter)
    made = tensors_of(tmp_path / "made")
    for path, values in lengths.items():
        exact = merged(path, tensors, 4.0)
        exact *= (values / np.linalg.norm(exact, axis=1))[:, None]
        assert np.allclose(np.array(made[f"{path}.weight"]), exact, rtol=1e-4, atol=1e-6)


def test_embeddings_and_whole_tensors_are_taken(tmp_path):
    random = np.random.RandomState(1)
    down, up = (
        random.standard_normal(shape).astype(np.float32) for shape in ((RANK, 320), (64, RANK))
    )
    head, norm = random.standard_normal((320, 64)).astype(np.float32), np.full(64, 2, np.float32)
    tensors = {
        "model.embed_tokens.lora_embedding_A": down,
        "model.embed_tokens.lora_embedding_B": up,
        "lm_head.weight": head,
        "model.norm.modules_to_save.default.weight": norm,
    }
    adapter = write_peft(tmp_path / "adapter", tensors, modules_to_save=["lm_head", "norm"])
    convert(write_model(tmp_path / "base", LLAMA), tmp_path / "made", bits=16, adapter=adapter)
    made = tensors_of(tmp_path / "made")
    expected = (
        random_tensors(LLAMA)["model.embed_tokens.weight"] + 4 * (up.astype(np.float64) @ down).T
    )
    assert np.allclose(np.array(made["model.embed_tokens.weight"]), expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(np.array(made["lm_head.weight"]), head)
    assert np.array_equal(np.array(made["model.norm.weight"]), norm)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_base_keeps_its_form_and_the_error_is_said(tmp_path, bits):
    convert(write_model(tmp_path / "plain", LLAMA), tmp_path / "base", bits=bits)
    tensors = peft_tensors()
    report = convert(
        tmp_path / "base", tmp_path / "made", adapter=write_peft(tmp_path / "adapter", tensors)
    )
    base, made = tensors_of(tmp_path / "base"), tensors_of(tmp_path / "made")
    assert base.keys() == made.keys()
    assert report.errors.keys() == set(PATHS)
    for path in PATHS:
        given, parts = (
            [found[f"{path}.{part}"] for part in ("weight", "scales", "biases")]
            for found in (base, made)
        )
        change = (
            4
            * mx.array(tensors[f"{path}.lora_B.weight"])
            @ mx.array(tensors[f"{path}.lora_A.weight"])
        )
        exact, restored = mx.dequantize(*given, 64, bits) + change, mx.dequantize(*parts, 64, bits)
        error = float(mx.sqrt(mx.square(restored - exact).sum() / mx.square(exact).sum()))
        assert report.errors[path] == pytest.approx(error, rel=1e-2)
        assert error < {4: 0.15, 8: 0.01}[bits]
    assert all(
        bool(mx.array_equal(base[name], made[name]))
        for name in base
        if name.rpartition(".")[0] not in PATHS
    )


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")  # PEFT's own
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 2}},
        {"rank_pattern": {r".*[02]\.self_attn.(q|v)_proj": 2}, "alpha_pattern": {"[qv]_proj": 32}},
        {"trainable_token_indices": {"lm_head": [7, 3]}},
    ],
)
def test_pefts_own_merge_is_ours(tmp_path, more):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    base = write_model(tmp_path / "base", LLAMA)
    usual = {
        "target_modules": ["q_proj", "v_proj", "down_proj", "embed_tokens"],
        "alpha_pattern": {"layers.1.self_attn.v_proj": 6},
    }
    model = trained_by_peft(peft, base, **usual | more)
    model.save_pretrained(tmp_path / "adapter")
    convert(base, tmp_path / "made", bits=16, adapter=tmp_path / "adapter")
    made = tensors_of(tmp_path / "made")
    for name, values in model.merge_and_unload().state_dict().items():
        assert np.allclose(np.array(made[name]), values.numpy(), rtol=1e-4, atol=1e-5), name


def test_rows_of_tokens_and_lengths_of_columns_are_those_of_plain_arithmetic(tmp_path):
    random = np.random.RandomState(1)
    values = random_tensors(LLAMA)["model.embed_tokens.weight"].astype(np.float64)
    down, up, rows = (
        random.standard_normal(shape).astype(np.float32)
        for shape in ((RANK, 320), (64, RANK), (2, 64))
    )
    lengths = np.linspace(1, 30, 64).astype(np.float32)
    tensors = {
        "model.embed_tokens.lora_embedding_A": down,
        "model.embed_tokens.lora_embedding_B": up,
        "model.embed_tokens.lora_magnitude_vector": lengths,
        "lm_head.token_adapter.trainable_tokens_delta": rows,
    }
    adapter = write_peft(
        tmp_path / "adapter", tensors, use_dora=True, trainable_token_indices={"lm_head": [9, 0]}
    )
    convert(write_model(tmp_path / "base", LLAMA), tmp_path / "made", bits=16, adapter=adapter)
    made = tensors_of(tmp_path / "made")
    changed = values + 4.0 * (up.astype(np.float64) @ down).T
    changed *= lengths / np.linalg.norm(changed, axis=0)
    assert np.allclose(np.array(made["model.embed_tokens.weight"]), changed, rtol=1e-4, atol=1e-6)
    head = random_tensors(LLAMA)["lm_head.weight"].astype(np.float32)
    head[[9, 0]] = rows
    assert np.array_equal(np.array(made["lm_head.weight"]), head)


@pytest.mark.parametrize("config", [LLAMA, TIED])
def test_an_adapter_of_single_tokens_alone(tmp_path, config):
    rows = np.random.RandomState(1).standard_normal((2, 64)).astype(np.float32)
    tensors = {"model.embed_tokens.trainable_tokens_delta": rows}
    if config is TIED:  # PEFT then writes the same rows twice
        tensors["lm_head.trainable_tokens_delta"] = rows
    adapter = write_peft(tmp_path / "adapter", tensors)
    said = {
        "peft_type": "TRAINABLE_TOKENS",
        "token_indices": [9, 0],
        "init_weights": True,
        "target_modules": ["embed_tokens"],
        "inference_mode": True,
    }
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    convert(write_model(tmp_path / "base", config), tmp_path / "made", bits=16, adapter=adapter)
    made = tensors_of(tmp_path / "made")
    expected = random_tensors(config)["model.embed_tokens.weight"].astype(np.float32)
    expected[[9, 0]] = rows
    assert np.array_equal(np.array(made["model.embed_tokens.weight"]), expected)
    head = made.get("lm_head.weight")
    if config is TIED and head is not None:
        assert np.array_equal(np.array(head), expected)


@pytest.mark.parametrize(("size", "low", "high"), [(1 / 400, 0.6, 0.8), (1.0, 0.99, 1.01)])
def test_the_share_of_a_change_that_is_left_in_few_bits_is_said(tmp_path, size, low, high):
    """Of a change below a step of the codes much is rounded away; of one far above it nothing."""
    convert(write_model(tmp_path / "plain", LLAMA), tmp_path / "base", bits=4)
    tensors = peft_tensors(PATHS[:3])
    tensors |= {name: size * values for name, values in tensors.items() if "lora_B" in name}
    adapter = write_peft(tmp_path / "adapter", tensors)
    report = convert(tmp_path / "base", tmp_path / "made", adapter=adapter)
    assert low < report.change_kept < high
    restored, base, change = [], [], []
    for path in PATHS[:3]:
        for values, folder in [(base, "base"), (restored, "made")]:
            stored = tensors_of(tmp_path / folder)
            parts = (stored[f"{path}.{part}"] for part in ("weight", "scales", "biases"))
            values.append(np.array(mx.dequantize(*parts, 64, 4)).ravel())
        up, down = (tensors[f"{path}.lora_{factor}.weight"] for factor in "BA")
        change.append((4.0 * up @ down).ravel())
    restored, base, change = map(np.concatenate, (restored, base, change))
    share = np.vdot(restored - base, change) / np.vdot(change, change)
    assert report.change_kept == pytest.approx(share, rel=1e-3)


def test_of_unquantized_weights_no_share_is_said(tmp_path):
    base = write_model(tmp_path / "base", LLAMA)
    adapter = write_peft(tmp_path / "adapter", peft_tensors())
    assert convert(base, tmp_path / "made", bits=16, adapter=adapter).change_kept is None
