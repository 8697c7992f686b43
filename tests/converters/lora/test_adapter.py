"""LoRA adapters merged by the converter: against plain arithmetic, PEFT's names, mlx-lm's fuse."""

import json
import math
import re

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.adapters import RANK, write_peft
from support.folders import tensors_of
from support.tiny import CONFIGS, random_tensors, write_model
from support.torch_files import write_arrays

from edgellm import load
from edgellm.converters import convert
from edgellm.converters.lora.adapter import read_adapter
from edgellm.errors import EdgeLLMError, FormatError, ModelNotFoundError, UnsupportedModelError
from edgellm.files.strict_json import read_json

LLAMA = CONFIGS["llama-2"]
TIED = LLAMA | {"tie_word_embeddings": True}
PATHS = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.v_proj",
    "model.layers.3.mlp.down_proj",
    "lm_head",
]


def factors(shape, seed, rank=RANK):
    random = np.random.RandomState(seed)
    down = (random.standard_normal((rank, shape[1])) / np.sqrt(shape[1])).astype(np.float32)
    return down, random.standard_normal((shape[0], rank)).astype(np.float32) / 8


def peft_tensors(paths=PATHS, rank=RANK):
    values, tensors = random_tensors(LLAMA), {}
    for seed, path in enumerate(paths):
        down, up = factors(values[f"{path}.weight"].shape, seed, rank)
        tensors |= {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}
    return tensors


def merged(path, tensors, scale):
    change = tensors[f"{path}.lora_B.weight"].astype(np.float64) @ tensors[f"{path}.lora_A.weight"]
    return random_tensors(LLAMA)[f"{path}.weight"] + scale * change


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


def trained(peft, base, **config):
    """A model with an adapter by PEFT, whose numbers are no longer those it begins with."""
    import torch
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.get_peft_model(plain, peft.LoraConfig(r=RANK, lora_alpha=16, **config))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn_like(parameter) / 20
                parameter.mul_(1 + noise.abs()) if "magnitude" in name else parameter.add_(noise)
    return model


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
    model = trained(peft, base, **usual | more)
    model.save_pretrained(tmp_path / "adapter")
    convert(base, tmp_path / "made", bits=16, adapter=tmp_path / "adapter")
    made = tensors_of(tmp_path / "made")
    for name, values in model.merge_and_unload().state_dict().items():
        assert np.allclose(np.array(made[name]), values.numpy(), rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("bits", [16, 4])
def test_mlx_lms_adapters_are_merged_as_its_own_fuse_does(tmp_path, kind, bits):
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    convert(write_model(tmp_path / "plain", LLAMA), tmp_path / "base", bits=bits)
    model, _ = load_model(tmp_path / "base")
    model.freeze()
    parameters = {"rank": RANK, "scale": 7.0, "dropout": 0.0}
    linear_to_lora_layers(model, 2, parameters, use_dora=kind == "dora")
    trained = dict(tree_flatten(model.trainable_parameters()))
    random = np.random.RandomState(0)
    for name, values in trained.items():
        if name.endswith("lora_b"):
            trained[name] = mx.array(random.standard_normal(values.shape).astype(np.float32) / 30)
    model.update(tree_unflatten(list(trained.items())))
    (tmp_path / "adapter").mkdir()
    mx.save_safetensors(str(tmp_path / "adapter" / "adapters.safetensors"), trained)
    config = {"fine_tune_type": kind, "num_layers": 2, "lora_parameters": parameters}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    report = convert(
        tmp_path / "base",
        tmp_path / "made",
        bits=None if bits == 4 else 16,
        adapter=tmp_path / "adapter",
    )
    fused = [
        (name, module.fuse(dequantize=True))
        for name, module in model.named_modules()
        if hasattr(module, "fuse")
    ]
    assert len(fused) == report.merged > 0
    made = tensors_of(tmp_path / "made")
    for name, module in fused:
        if bits == 16:
            assert np.allclose(
                np.array(made[f"{name}.weight"]), np.array(module.weight), rtol=1e-4, atol=1e-5
            )
        else:
            restored = mx.dequantize(
                *(made[f"{name}.{part}"] for part in ("weight", "scales", "biases")), 64, 4
            )
            error = float(
                mx.sqrt(mx.square(restored - module.weight).sum() / mx.square(module.weight).sum())
            )
            assert error == pytest.approx(report.errors[name], rel=0.05)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_mlx_lms_change_of_an_embedding_that_is_the_head_is_one_of_both(tmp_path, kind):
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    base = write_model(tmp_path / "base", TIED)
    model, _ = load_model(base)
    model.freeze()
    keys = ["self_attn.q_proj", "model.embed_tokens"]
    parameters = {"rank": RANK, "scale": 7.0, "dropout": 0.0, "keys": keys}
    linear_to_lora_layers(model, 2, parameters, use_dora=kind == "dora")
    trained = dict(tree_flatten(model.trainable_parameters()))
    random = np.random.RandomState(0)
    for name, values in trained.items():
        if name.endswith("lora_b"):
            trained[name] = mx.array(random.standard_normal(values.shape).astype(np.float32) / 30)
    model.update(tree_unflatten(list(trained.items())))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    mx.save_safetensors(str(adapter / "adapters.safetensors"), trained)
    config = {"fine_tune_type": kind, "num_layers": 2, "lora_parameters": parameters}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    convert(base, tmp_path / "made", bits=16, adapter=adapter)
    assert read_json(tmp_path / "made" / "config.json")["tie_word_embeddings"] is True
    made, _ = load_model(tmp_path / "made")
    ids = mx.array([[1, 5, 9, 200]])
    assert np.allclose(np.array(made(ids)), np.array(model(ids)), atol=1e-4)


def test_full_fine_tunes_of_mlx_lm_are_taken(tmp_path):
    (tmp_path / "adapter").mkdir()
    weight = np.random.RandomState(2).standard_normal((64, 64)).astype(np.float32)
    mx.save_safetensors(
        str(tmp_path / "adapter" / "adapters.safetensors"), {f"{PATHS[0]}.weight": mx.array(weight)}
    )
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({"fine_tune_type": "full"})
    )
    convert(
        write_model(tmp_path / "base", LLAMA),
        tmp_path / "made",
        bits=16,
        adapter=tmp_path / "adapter",
    )
    assert np.array_equal(np.array(tensors_of(tmp_path / "made")[f"{PATHS[0]}.weight"]), weight)


def rename(old, new):
    return lambda tensors: {name.replace(old, new): values for name, values in tensors.items()}


def put(name, values):
    return lambda tensors: tensors | {name: values}


FIRST = PATHS[0]
REFUSED = {
    "another layer": (rename("layers.3.", "layers.4."), {}, FormatError, "layers.4.mlp.down_proj"),
    "another module": (rename("q_proj", "x_proj"), {}, FormatError, "self_attn.x_proj"),
    "half a change": (
        lambda tensors: {k: v for k, v in tensors.items() if k != f"{FIRST}.lora_B.weight"},
        {},
        FormatError,
        "half",
    ),
    "two ranks": (
        put(f"{FIRST}.lora_A.weight", np.ones((5, 64), np.float32)),
        {},
        FormatError,
        "ranks 4 and 5",
    ),
    "another width": (
        put(f"{FIRST}.lora_A.weight", np.ones((4, 65), np.float32)),
        {},
        FormatError,
        "(64, 65)",
    ),
    "a vector": (
        put(f"{FIRST}.lora_A.weight", np.ones(4, np.float32)),
        {},
        FormatError,
        "two matrices",
    ),
    "whole numbers": (
        put(f"{FIRST}.lora_A.weight", np.ones((4, 64), np.int32)),
        {},
        FormatError,
        "I32",
    ),
    "not a number": (
        put(f"{FIRST}.lora_A.weight", np.full((4, 64), np.nan, np.float32)),
        {},
        FormatError,
        "not a number",
    ),
    "more words": (
        put("lm_head.weight", np.ones((321, 64), np.float32)),
        {},
        FormatError,
        "(321, 64)",
    ),
    "a bias": (
        put(f"{FIRST}.lora_B.bias", np.ones(64, np.float32)),
        {},
        UnsupportedModelError,
        "lora_B.bias",
    ),
    "a trained bias": (
        put(f"{FIRST}.bias", np.ones(64, np.float32)),
        {},
        FormatError,
        "q_proj.bias",
    ),
    "no number": (None, {"lora_alpha": "16"}, FormatError, "lora_alpha"),
    "IA3": (None, {"peft_type": "IA3"}, UnsupportedModelError, "IA3"),
    "PiSSA": (None, {"init_lora_weights": "pissa_niter_4"}, UnsupportedModelError, "pissa"),
    "LoRA-GA": (None, {"init_lora_weights": "lora_ga"}, UnsupportedModelError, "lora_ga"),
    "a new way to begin": (
        None,
        {"init_lora_weights": "tomorrow"},
        UnsupportedModelError,
        "'tomorrow'",
    ),
    "layers repeated": (
        None,
        {"layer_replication": [[0, 3], [1, 4]]},
        UnsupportedModelError,
        "'layer_replication': [[0, 3], [1, 4]]",
    ),
    "biases": (None, {"lora_bias": True}, UnsupportedModelError, "'lora_bias'"),
    "blocks": (
        None,
        {"use_bdlora": {"nblocks": 4}},
        UnsupportedModelError,
        "'use_bdlora'",
    ),
    "pooled": (None, {"use_qalora": True}, UnsupportedModelError, "'use_qalora'"),
    "from some token on": (
        None,
        {"alora_invocation_tokens": [3, 4]},
        UnsupportedModelError,
        "'alora_invocation_tokens'",
    ),
    "experts": (
        None,
        {"target_parameters": ["experts.up"]},
        UnsupportedModelError,
        "'target_parameters'",
    ),
    "rows of tokens that nobody names": (
        put("lm_head.token_adapter.trainable_tokens_delta", np.ones((2, 64), np.float32)),
        {"trainable_token_indices": {"embed_tokens": [3, 4]}},
        FormatError,
        "which tokens' rows of 'lm_head'",
    ),
    "more rows than tokens": (
        put("lm_head.token_adapter.trainable_tokens_delta", np.ones((2, 64), np.float32)),
        {"trainable_token_indices": {"lm_head": [3]}},
        FormatError,
        "names 1 tokens",
    ),
    "a token that the model does not have": (
        put("lm_head.token_adapter.trainable_tokens_delta", np.ones((1, 64), np.float32)),
        {"trainable_token_indices": {"lm_head": [320]}},
        FormatError,
        "up to token 320",
    ),
    "what nobody has heard of": (
        None,
        {"use_tomorrows_lora": {"blocks": 3}},
        UnsupportedModelError,
        "'use_tomorrows_lora'",
    ),
    "an expression that is none": (
        None,
        {"alpha_pattern": {"layers.(0": 3}},
        FormatError,
        "'layers.(0' is no regular expression",
    ),
    "an expression without end": (
        None,
        {"alpha_pattern": {"(([a-z0-9_]+.?)+)+!": 3}},
        UnsupportedModelError,
        "more than 5 s",
    ),
    "an alpha without end": (None, {"lora_alpha": 10**400}, FormatError, "lora_alpha"),
    "a switch that is a text": (None, {"use_rslora": "no"}, FormatError, "use_rslora"),
    "DoRA without lengths": (None, {"use_dora": True}, FormatError, "lengths"),
    "lengths without DoRA": (
        put(f"{PATHS[0]}.lora_magnitude_vector", np.ones(64, np.float32)),
        {},
        FormatError,
        "lengths",
    ),
    "nothing": (lambda tensors: {}, {}, FormatError, "no tensor|no adapter"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_would_be_merged_wrongly_is_refused(tmp_path, fault):
    edit, config, error, said = REFUSED[fault]
    base = write_model(tmp_path / "base", LLAMA)
    adapter = write_peft(
        tmp_path / "adapter", edit(peft_tensors()) if edit else peft_tensors(), **config
    )
    with pytest.raises(error) as caught:
        convert(base, tmp_path / "made", adapter=adapter)
    assert any(part in caught.value.message for part in said.split("|"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


PEFT_SAYS = {
    "0.3": {"enable_lora": None, "merge_weights": False, "modules_to_save": None},
    "0.5": {"auto_mapping": None, "layers_pattern": None, "layers_to_transform": [0, 1, 3]},
    "0.13": {
        "auto_mapping": {"base_model_class": "LlamaForCausalLM", "unsloth_fixed": True},
        "exclude_modules": ["lm_head"],
        "layer_replication": None,
        "loftq_config": {},
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "rank_pattern": {},
        "runtime_config": {"ephemeral_gpu_offload": True},
        "use_dora": False,
    },
    "0.21": {
        "alora_invocation_tokens": None,
        "arrow_config": None,
        "corda_config": None,
        "ensure_weight_tying": True,
        "eva_config": {"rho": 2.0, "tau": 0.99},
        "init_lora_weights": "eva",
        "kasa_config": None,
        "lora_bias": False,
        "lora_ga_config": None,
        "monteclora_config": None,
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "target_parameters": [],
        "trainable_token_indices": None,
        "use_bdlora": None,
        "use_qalora": False,
        "velora_config": {},
    },
    "tomorrow's, and off": {"use_tomorrows_lora": False, "tomorrows_config": {}, "note": ""},
}


@pytest.mark.parametrize("version", PEFT_SAYS)
def test_what_pefts_versions_write_of_plain_lora_is_merged(tmp_path, version):
    plain = read_adapter(write_peft(tmp_path / "plain", peft_tensors()))
    found = read_adapter(write_peft(tmp_path / "x", peft_tensors(), **PEFT_SAYS[version]))
    assert {path: change.scale for path, change in found.changes.items()} == {
        path: change.scale for path, change in plain.changes.items()
    }


@pytest.mark.parametrize(
    ("pattern", "scales"),
    [
        ("^model.layers.0.self_attn.q_proj", [0.5, 4.0, 4.0, 4.0]),
        (r"layers\.0\.self_attn\.q_proj$", [0.5, 4.0, 4.0, 4.0]),
        ("^q_proj", [4.0] * 4),
        ("roj", [4.0] * 4),
        ("lm_head", [4.0, 4.0, 4.0, 0.5]),
        (r".*\.layers\.1\..*", [4.0, 0.5, 4.0, 4.0]),
        (r"layers\.[01]\.self_attn\.(q|v)_proj", [0.5, 0.5, 4.0, 4.0]),
        ("layers.(0|3).+", [0.5, 4.0, 0.5, 4.0]),
        ("(?!self).*_proj", [0.5, 0.5, 0.5, 4.0]),
    ],
)
def test_alphas_of_modules_are_found_as_pefts_expressions_find_them(tmp_path, pattern, scales):
    for path, scale in zip(PATHS, scales, strict=True):
        assert (scale == 0.5) == bool(re.match(rf"(.*\.)?({pattern})$", path))
    found = read_adapter(
        write_peft(tmp_path / "adapter", peft_tensors(), alpha_pattern={pattern: 2})
    )
    assert [found.changes[path].scale for path in PATHS] == scales


def test_the_first_of_several_patterns_counts_in_the_order_of_the_file(tmp_path):
    patterns = {"(q|v)_proj": 2, "q_proj": 8, ".*": 1}
    found = read_adapter(write_peft(tmp_path / "x", peft_tensors(), alpha_pattern=patterns))
    assert [found.changes[path].scale for path in PATHS] == [0.5, 0.5, 0.25, 0.25]


def write_mlx(folder, **config):
    folder.mkdir()
    down, up = np.ones((64, RANK), np.float32), np.ones((RANK, 64), np.float32)
    tensors = {f"{PATHS[0]}.lora_a": mx.array(down), f"{PATHS[0]}.lora_b": mx.array(up)}
    mx.save_safetensors(str(folder / "adapters.safetensors"), tensors)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_mlx_lms_options_of_the_training_have_no_effect(tmp_path):
    parameters = {"rank": RANK, "alpha": 16.0, "scale": 7.0, "dropout": 0.1, "keys": ["q_proj"]}
    training = {"grad_checkpoint": True, "lr_schedule": {"name": "cosine"}, "seed": 5, "mine": [1]}
    found = read_adapter(write_mlx(tmp_path / "x", lora_parameters=parameters, **training))
    assert [change.scale for change in found.changes.values()] == [7.0]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"lora_parameters": {"scale": 7.0, "rescaled": True}}, "'rescaled'"),
        ({"lora_parameters": [7.0]}, "lora_parameters"),
        ({"lora_parameters": {"rank": 4}}, "scale"),
        ({"fine_tune_type": "dora", "lora_parameters": {"scale": 7.0}}, "lengths"),
    ],
)
def test_what_mlx_lms_config_says_of_the_change_is_known_or_refused(tmp_path, config, said):
    with pytest.raises((FormatError, UnsupportedModelError), match=said):
        read_adapter(write_mlx(tmp_path / "x", **config))


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")  # PEFT's own
@pytest.mark.parametrize(
    ("more", "own_head"),
    [
        ({"modules_to_save": ["lm_head"]}, True),
        ({"modules_to_save": ["embed_tokens"]}, True),
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, True),
        ({"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, False),
        ({"trainable_token_indices": [3, 300]}, False),
        ({"trainable_token_indices": {"embed_tokens": [3], "lm_head": [3]}}, False),
    ],
)
def test_a_tied_head_becomes_one_of_its_own_where_pefts_merge_unties_it(tmp_path, more, own_head):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    base = write_model(tmp_path / "base", TIED)
    model = trained(peft, base, target_modules=["q_proj"], **more)
    model.save_pretrained(tmp_path / "adapter")
    convert(base, tmp_path / "made", bits=16, adapter=tmp_path / "adapter")
    merged_model = model.merge_and_unload()
    assert read_json(tmp_path / "made" / "config.json")["tie_word_embeddings"] is not own_head
    assert merged_model.config.tie_word_embeddings is not own_head
    made = tensors_of(tmp_path / "made")
    assert ("lm_head.weight" in made) is own_head
    for name, values in merged_model.state_dict().items():
        if name in made:
            assert np.allclose(np.array(made[name]), values.numpy(), rtol=1e-5, atol=1e-6), name


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")  # PEFT's own
@pytest.mark.parametrize(
    "more",
    [
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["lm_head"], "use_dora": True},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"target_modules": ["embed_tokens"], "use_dora": True, "ensure_weight_tying": True},
        {
            "target_modules": ["q_proj"],
            "trainable_token_indices": {"embed_tokens": [3, 7], "lm_head": [3, 9]},
        },
    ],
)
def test_one_of_two_tied_matrices_is_changed_as_it_was_trained(tmp_path, more):
    """PEFT's own merge adds to the weights of both, which its model never computed with."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    import torch
    from transformers import AutoModelForCausalLM

    base = write_model(tmp_path / "base", TIED)
    model = trained(peft, base, **more).eval()
    model.save_pretrained(tmp_path / "adapter")
    convert(base, tmp_path / "made", bits=16, adapter=tmp_path / "adapter")
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "made", dtype=torch.float32)
    ids = torch.tensor([[1, 3, 9, 7, 200]])
    with torch.no_grad():
        expected, got = model(ids).logits, made(ids).logits
    assert float((expected - got).abs().max()) < 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("bits", [16, 4])
def test_the_head_of_a_tied_model_is_replaced_alone(tmp_path, bits):
    convert(write_model(tmp_path / "plain", TIED), tmp_path / "base", bits=bits)
    head = np.random.RandomState(3).standard_normal((320, 64)).astype(np.float32)
    adapter = write_peft(tmp_path / "adapter", peft_tensors(PATHS[:1]) | {"lm_head.weight": head})
    said = []
    report = convert(
        tmp_path / "base",
        tmp_path / "made",
        bits={16: 16, 4: None}[bits],
        adapter=adapter,
        progress=said.append,
    )
    assert report.merged == 2
    assert any("head is stored for itself" in (step.message or "") for step in said)
    base, made = tensors_of(tmp_path / "base"), tensors_of(tmp_path / "made")
    for name in base:
        if "embed_tokens" in name:
            assert mx.array_equal(base[name], made[name])
    with load(tmp_path / "made", memory="1GB") as llm:
        assert llm.config.tie_word_embeddings is False
    if bits == 16:
        assert np.array_equal(np.array(made["lm_head.weight"]), head)
    else:
        quantized = mx.quantize(mx.array(head), 64, 4)
        parts = [made[f"lm_head.{part}"] for part in ("weight", "scales", "biases")]
        assert all(mx.array_equal(*pair) for pair in zip(parts, quantized, strict=True))


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


def test_a_folder_that_is_no_adapter_is_said(tmp_path):
    base = write_model(tmp_path / "base", LLAMA)
    with pytest.raises(ModelNotFoundError):
        convert(base, tmp_path / "made", adapter=tmp_path / "absent")
    (write_peft(tmp_path / "adapter", peft_tensors()) / "adapter_model.safetensors").unlink()
    with pytest.raises(FormatError, match="neither"):
        convert(base, tmp_path / "made", adapter=tmp_path / "adapter")
    with pytest.raises(FormatError, match=r"has no adapter_config\.json") as caught:
        convert(base, tmp_path / "made", adapter=base)
    assert caught.value.hint == "name the folder that holds adapter_config.json"


@settings(max_examples=40)
@given(st.data())
def test_a_damaged_adapter_is_an_error_of_ours_or_an_adapter(tmp_path_factory, data):
    folder = write_peft(tmp_path_factory.mktemp("adapter") / "x", peft_tensors(PATHS[:1]))
    file = folder / data.draw(st.sampled_from(["adapter_config.json", "adapter_model.safetensors"]))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, min(len(content), 700) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content[: data.draw(st.sampled_from([len(content), at]))])
    try:
        found = read_adapter(folder)
        assert all(math.isfinite(change.scale) for change in found.changes.values())
    except EdgeLLMError:
        pass
