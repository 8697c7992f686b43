"""Families that are LLaMA under another name, and text parts of models that see, bit for bit."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest
from support import tiny
from support.folders import fused, rewritten, saved_by_mlx_lm, tensors_of

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.dialects.wrappers import text_part
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.converters import convert
from edgellm.diagnostics.verify import verify
from edgellm.errors import FormatError, UnsupportedModelError

HEAD_DIM = 16


def paired(tensors):
    """Order heads' rows as helium and ernie4_5 have them: what turns together side by side."""
    out = {}
    for name, value in tensors.items():
        out[name] = value
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            halves = value.reshape(-1, 2, HEAD_DIM // 2, value.shape[1])
            out[name] = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(value.shape)
    return out


def assert_same_files(one, other):
    first, second = tensors_of(one), tensors_of(other)
    assert first.keys() == second.keys()
    assert all(np.array_equal(np.array(first[name]), np.array(second[name])) for name in first)


@pytest.fixture
def llama(tiny_folder):
    return tiny_folder("llama-2", config={"head_dim": HEAD_DIM})


def test_phi3_is_a_llama_in_two_pieces(llama, tmp_path, open_llm):
    config = {"model_type": "phi3", "sliding_window": None, "rms_norm_eps": 1e-5}
    folder = rewritten(llama, tmp_path / "phi3", fused, config)
    checkpoint = read_checkpoint(folder)
    assert checkpoint.config.model_type == "llama"
    ids = [5, 9, 200, 41]
    expected = np.array(open_llm(llama).logits(ids))
    assert np.array_equal(np.array(open_llm(folder).logits(ids)), expected)
    convert(llama, tmp_path / "llama")
    convert(folder, tmp_path / "made")
    assert_same_files(tmp_path / "made", tmp_path / "llama")
    made = json.loads((tmp_path / "made" / "config.json").read_text())
    assert (made["model_type"], made["architectures"]) == ("llama", ["LlamaForCausalLM"])


def test_phi3_with_a_window_is_a_mistral(tiny_folder, tmp_path):
    mistral = tiny_folder("mistral-window")
    folder = rewritten(mistral, tmp_path / "phi3", fused, {"model_type": "phi3"})
    assert read_checkpoint(folder).config == read_checkpoint(mistral).config


def test_phi3_that_mlx_lm_quantized_opens(llama, tmp_path, open_llm):
    """Codes go by row: a fused matrix falls apart into the codes of its members."""
    from mlx_lm.utils import load_model

    config = {"model_type": "phi3", "sliding_window": None, "tie_word_embeddings": False}
    folder = rewritten(llama, tmp_path / "phi3", fused, config)

    def recipe(path, module):
        if not hasattr(module, "to_quantized"):
            return False
        return {"bits": 8 if "qkv_proj" in path else 4, "group_size": 32}

    saved_by_mlx_lm(folder, tmp_path / "made", group_size=32, bits=4, quant_predicate=recipe)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "made" / name).write_bytes((llama / name).read_bytes())
    checkpoint = read_checkpoint(tmp_path / "made")
    bits = {name: form.bits for name, form in checkpoint.layers[0].quantizations.items()}
    assert (bits["self_attn.k_proj"], bits["mlp.up_proj"]) == (8, 4)
    model, _ = load_model(tmp_path / "made")
    model.set_dtype(mx.float32)
    ids = [5, 9, 200, 41]
    theirs = np.array(model(mx.array([ids]))[0])
    ours = np.array(open_llm(tmp_path / "made", load={"backend": "mlx"}).logits(ids))
    assert np.abs(ours - theirs).max() < 1e-4


IN_PART = {"model_type": "phi3", "sliding_window": None, "partial_rotary_factor": 0.75}


@pytest.mark.parametrize("bits", [16, 4])
def test_phi3_in_part_is_written_as_phi3_is(bits, llama, tmp_path, open_llm):
    """Its own matrices, with the codes that mlx-lm gives them, so that others open the folder."""
    from mlx_lm.utils import load_model

    folder = rewritten(llama, tmp_path / "phi3", fused, IN_PART)
    convert(folder, tmp_path / "made", bits=bits)
    quantization = {"group_size": 64, "bits": 4} if bits == 4 else {}
    saved_by_mlx_lm(folder, tmp_path / "theirs", **quantization)
    assert_same_files(tmp_path / "made", tmp_path / "theirs")
    convert(tmp_path / "made", tmp_path / "again", bits=bits)
    assert_same_files(tmp_path / "again", tmp_path / "made")
    made = json.loads((tmp_path / "made" / "config.json").read_text())
    assert (made["model_type"], made["architectures"]) == ("phi3", ["Phi3ForCausalLM"])
    assert all(verdict.passed for verdict in verify(tmp_path / "made").verdicts)
    model, _ = load_model(tmp_path / "made")
    model.set_dtype(mx.float32)
    ids = [5, 9, 200, 41]
    theirs = np.array(model(mx.array([ids]))[0])
    ours = np.array(open_llm(tmp_path / "made", load={"backend": "mlx"}).logits(ids))
    assert np.abs(ours - theirs).max() < 1e-4


def test_members_of_a_fused_matrix_get_the_finest_form_of_them(llama, tmp_path, open_llm):
    """A folder with its matrices apart, as edgellm once wrote them, may have them in two forms."""

    def recipe(path, module):
        if not hasattr(module, "to_quantized"):
            return False
        return {"bits": 8 if "v_proj" in path or "layers.0.mlp.up" in path else 4, "group_size": 32}

    saved_by_mlx_lm(llama, tmp_path / "apart", group_size=32, bits=4, quant_predicate=recipe)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "apart" / name).write_bytes((llama / name).read_bytes())
    config = json.loads((tmp_path / "apart" / "config.json").read_text())
    (tmp_path / "apart" / "config.json").write_text(json.dumps(config | IN_PART))
    report = convert(tmp_path / "apart", tmp_path / "made")
    assert "model.layers.0.self_attn.q_proj" in report.errors
    made = json.loads((tmp_path / "made" / "config.json").read_text())["quantization"]
    bits = {path: form["bits"] for path, form in made.items() if isinstance(form, dict)}
    expected = {f"model.layers.{layer}.self_attn.qkv_proj": 8 for layer in range(tiny.LAYERS)}
    assert bits == expected | {"model.layers.0.mlp.gate_up_proj": 8}
    ids = [5, 9, 200, 41]
    before, after = (
        np.array(open_llm(tmp_path / name, load={"backend": "mlx"}).logits(ids))
        for name in ("apart", "made")
    )
    assert np.abs(after - before).max() < 0.1 * np.abs(before).max()


@pytest.mark.parametrize("family", ["helium", "ernie4_5"])
def test_heads_in_pairs_are_turned_to_halves(family, llama, tmp_path):
    config = {"model_type": family, "rope_theta": 10000.0}
    folder = rewritten(llama, tmp_path / family, paired, config)
    with pytest.raises(UnsupportedModelError, match="have to be converted") as raised:
        read_checkpoint(folder)
    assert "edgellm convert" in raised.value.hint
    convert(llama, tmp_path / "llama")
    convert(folder, tmp_path / "made")
    assert_same_files(tmp_path / "made", tmp_path / "llama")


@pytest.mark.parametrize("family", ["xverse", "iquestcoder"])
def test_aliases_are_llamas(family, llama, tmp_path):
    folder = rewritten(llama, tmp_path / family, dict, {"model_type": family})
    assert read_checkpoint(folder).config == read_checkpoint(llama).config


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_text_part_of_a_model_that_sees_is_a_model(prefix, tiny_folder, tmp_path, open_llm):
    mistral = tiny_folder("mistral")
    raw = json.loads((mistral / "config.json").read_text())
    wrapper = dict.fromkeys(raw) | {"model_type": "mistral3", "text_config": raw}

    def rename(tensors):
        seen = {"vision_tower.patch_conv.weight": np.ones((2, 2), np.float32)}
        for name, value in tensors.items():
            ours = f"language_model.{name}"
            if name.startswith("model."):
                ours = prefix + name.removeprefix("model.")
            seen[ours] = value
        return seen

    folder = rewritten(mistral, tmp_path / "seeing", rename, wrapper)
    ids = [5, 9, 200, 41]
    expected = np.array(open_llm(mistral).logits(ids))
    assert np.array_equal(np.array(open_llm(folder).logits(ids)), expected)
    convert(mistral, tmp_path / "plain")
    said = []
    convert(folder, tmp_path / "made", progress=lambda step: said.append(step.message))
    assert "a mistral3 is written as a mistral, and the new config says so" in said
    assert "1 tensor that no text goes through left out" in said
    assert_same_files(tmp_path / "made", tmp_path / "plain")
    assert json.loads((tmp_path / "made" / "config.json").read_text())["model_type"] == "mistral"


def test_sizes_that_a_published_llava_leaves_out_are_its_familys():
    """The config of llava-1.5-7b-hf, and the text part of llava-v1.6-mistral-7b-hf."""
    text = {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064}
    wrapper = {"model_type": "llava", "vocab_size": 32000, "tie_word_embeddings": False}
    config = ModelConfig.from_dict(text_part(wrapper | {"text_config": text}))
    assert (config.hidden_size, config.intermediate_size) == (4096, 11008)
    assert (config.num_hidden_layers, config.num_attention_heads) == (32, 32)
    assert (config.num_key_value_heads, config.vocab_size) == (32, 32064)
    text = {"model_type": "mistral", "max_position_embeddings": 32768, "num_key_value_heads": 8}
    config = ModelConfig.from_dict(text_part({"model_type": "llava_next", "text_config": text}))
    assert (config.hidden_size, config.intermediate_size) == (4096, 14336)
    assert (config.num_key_value_heads, config.vocab_size) == (8, 32000)
    # a model that is nothing else says its sizes
    with pytest.raises(FormatError, match="num_attention_heads is missing"):
        ModelConfig.from_dict({"model_type": "llama", "vocab_size": 32064})


def test_what_a_trainer_and_other_families_leave_is_no_obstacle(llama, tmp_path, open_llm):
    def with_value_head(tensors):
        return tensors | {"v_head.summary.bias": np.ones(1, np.float32)}

    # a field of state-space models, written as Python writes it
    more = {"time_step_limit": [0.0, float("inf")]}
    folder = rewritten(llama, tmp_path / "tuned", with_value_head, more)
    ids = [5, 9, 200, 41]
    expected = np.array(open_llm(llama).logits(ids))
    assert np.array_equal(np.array(open_llm(folder).logits(ids)), expected)
    said = []
    convert(folder, tmp_path / "made", progress=lambda step: said.append(step.message))
    assert "1 tensor that no text goes through left out" in said
    assert read_checkpoint(tmp_path / "made").folder.config["time_step_limit"] == [0.0, math.inf]


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_that_is_read_has_to_be_finite(llama, tmp_path, value):
    folder = rewritten(llama, tmp_path / "odd", dict, {"rms_norm_eps": value})
    with pytest.raises(FormatError, match="rms_norm_eps"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "granitemoehybrid", "layer_types": ["mamba"]}, "state-space"),
        ({"model_type": "granitemoehybrid"}, "state-space"),
        ({"model_type": "granitemoehybrid", "layer_types": ["attention"]}, "no rotary"),
        ({"model_type": "iquestcoder", "clip_qkv": 8}, "clip_qkv"),
        ({"model_type": "mistral3", "text_config": {"model_type": "ministral3"}}, "ministral3"),
        ({"model_type": "xverse", "partial_rotary_factor": 0.75}, "partial_rotary_factor"),
    ],
)
def test_what_no_llama_does_is_refused_by_name(config, said, llama, tmp_path):
    folder = rewritten(llama, tmp_path / "other", dict, config)
    with pytest.raises(UnsupportedModelError, match=said):
        read_checkpoint(folder)
    with pytest.raises(UnsupportedModelError, match=said):
        convert(folder, tmp_path / "made")


def test_a_fused_matrix_of_another_size_is_refused(llama, tmp_path):
    config = {"model_type": "phi3", "num_key_value_heads": 4}
    folder = rewritten(llama, tmp_path / "phi3", fused, config)
    with pytest.raises(FormatError, match="it should have 192 rows"):
        read_checkpoint(folder)


def test_a_wrapper_without_its_text_is_refused(llama, tmp_path):
    folder = rewritten(llama, tmp_path / "blind", dict, {"model_type": "mistral3"})
    with pytest.raises(FormatError, match="text_config"):
        read_checkpoint(folder)


FAMILIES = {
    "phi3": {},
    "phi3 with longrope": {
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope",
            "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
            "long_factor": [1.0, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0],
        },
    },
    "phi3 in part": {"partial_rotary_factor": 0.75, "sliding_window": 9},
    "helium": {"head_dim": 16, "attention_bias": True},
    "ernie4_5": {"head_dim": 16, "use_bias": True},
    "seed_oss": {"head_dim": 24, "attention_out_bias": False, "tie_word_embeddings": False},
    "iquestcoder": {"head_dim": 16},
    "granite": {
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.2,
        "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
    },
    "granite tied": {
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.3,
        "residual_multiplier": 0.5,
        "logits_scaling": 0.7,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "granitemoehybrid": {
        "shared_intermediate_size": 80,
        "num_local_experts": 0,
        "layer_types": ["attention"] * 3,
        "position_embedding_type": "rope",
        "embedding_multiplier": 12.0,
        "attention_multiplier": 0.2,
        "residual_multiplier": 0.246,
        "logits_scaling": 8.0,
        "tie_word_embeddings": True,
    },
}


@pytest.mark.torch
@pytest.mark.parametrize("family", FAMILIES)
def test_a_converted_model_has_the_logits_that_transformers_gives(family, tmp_path, open_llm):
    from make_golden import open_reference, reference_logits
    from support.published_models import save_model

    reference = save_model(tmp_path / "model", family.split()[0], **FAMILIES[family])
    ids = np.random.RandomState(3).randint(5, tiny.VOCABULARY, 40).tolist()
    expected = reference_logits(reference, ids)
    scale = np.abs(expected).max()
    convert(tmp_path / "model", tmp_path / "made", bits=16)
    for load in ({"backend": "mlx"}, {"activations": "float", "kv_bits": 32}):
        ours = np.array(open_llm(tmp_path / "made", load=load).logits(ids))
        assert np.abs(ours - expected).max() < 1e-5 * max(1.0, scale)
    again = reference_logits(open_reference(tmp_path / "made"), ids)
    assert np.abs(again - expected).max() < 1e-5 * max(1.0, scale)
