"""Configs, in either form, mean what they mean to transformers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny

from edgellm.checkpoint.dialects.config_values import token_ids
from edgellm.checkpoint.model_config import ModelConfig, RopeScaling
from edgellm.errors import EdgeLLMError, FormatError, UnsupportedModelError

LLAMA = tiny.CONFIGS["llama-2"]


def theirs(folder, raw):
    """The same config as transformers reads it."""
    from transformers import AutoConfig

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    return AutoConfig.from_pretrained(folder)


VARIANTS = tiny.CONFIGS | {
    "mistral-silent": {
        key: value for key, value in tiny.MISTRAL.items() if key != "sliding_window"
    },
    "qwen2-layer-types": tiny.QWEN2
    | {
        "use_sliding_window": True,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "qwen2-silent-window": tiny.QWEN2 | {"use_sliding_window": True, "num_hidden_layers": 30},
    "both-forms": LLAMA
    | {
        "rope_theta": 5000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7000.0},
        "rope_parameters": {"rope_type": "default", "rope_theta": 9000.0},
    },
    "theta-in-both": LLAMA
    | {"rope_theta": 5000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 9000.0}},
    "null-scaling": LLAMA | {"rope_scaling": None, "rope_theta": 123.0},
    "scaling-by-rope-type": LLAMA
    | {"rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 3.0}},
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_config_means_what_it_means_to_transformers(kind, tmp_path):
    raw = VARIANTS[kind]
    ours, other = ModelConfig.from_dict(raw), theirs(tmp_path / "config", raw)
    for name in (
        "model_type",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
        "rms_norm_eps",
        "max_position_embeddings",
        "tie_word_embeddings",
        "bos_token_id",
    ):
        if name in raw or name == "tie_word_embeddings":
            assert getattr(ours, name) == getattr(other, name), name
    head_dim = getattr(other, "head_dim", None) or other.hidden_size // other.num_attention_heads
    assert ours.head_dim == head_dim
    assert ours.eos_token_ids == {other.eos_token_id}
    rope = other.rope_parameters
    assert ours.rope_theta == rope["rope_theta"]
    assert (ours.rope_scaling.kind if ours.rope_scaling else "default") == rope["rope_type"]
    if ours.rope_scaling:
        assert ours.rope_scaling.factor == rope["factor"]
    if rope["rope_type"] == "llama3":
        assert ours.rope_scaling == RopeScaling(
            kind="llama3",
            **{name: rope[name] for name in rope if name not in ("rope_type", "rope_theta")},
        )
    layers = range(other.num_hidden_layers)
    types = getattr(other, "layer_types", None)
    windowed = (
        [
            index
            for index in layers
            if (types[index] == "sliding_attention" if types else other.sliding_window)
        ]
        if (getattr(other, "sliding_window", None))
        else []
    )
    assert sorted(ours.sliding_layers) == windowed
    if windowed:
        assert ours.sliding_window == other.sliding_window


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_tensors_are_those_of_the_checkpoint(kind):
    raw = tiny.CONFIGS[kind]
    config = ModelConfig.from_dict(raw)
    layer, shapes = config.tensor_shapes(), config.outer_shapes()
    for index in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    assert shapes == tiny.tensor_shapes(raw)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"model_type": "gpt2"}, UnsupportedModelError, "gpt2"),
        ({"model_type": None}, UnsupportedModelError, "None"),
        ({"model_type": ["llama"]}, UnsupportedModelError, "llama"),
        ({"hidden_act": "gelu"}, UnsupportedModelError, "gelu"),
        ({"num_local_experts": 8}, UnsupportedModelError, "mixture of experts"),
        ({"partial_rotary_factor": 0.5}, UnsupportedModelError, "partial_rotary_factor"),
        (
            {"rope_scaling": {"rope_type": "mrope", "factor": 2}},
            UnsupportedModelError,
            "mrope",
        ),
        ({"rope_scaling": {"type": "longrope", "long_factor": [1]}}, FormatError, "short_factor"),
        ({"rope_scaling": {"type": "yarn"}, "rope_theta": 1}, FormatError, "rope_theta"),
        ({"rope_scaling": {"type": "yarn", "truncate": 2}}, FormatError, "truncate"),
        ({"rope_scaling": 3}, FormatError, "rope_scaling"),
        ({"rope_scaling": {"type": "linear"}}, FormatError, "factor"),
        (
            {"rope_scaling": tiny.LLAMA3_SCALING | {"high_freq_factor": 0.5}},
            FormatError,
            "high_freq_factor",
        ),
        (
            {"rope_scaling": tiny.LLAMA3_SCALING | {"original_max_position_embeddings": 0}},
            FormatError,
            "original_max",
        ),
        ({"rope_theta": 0}, FormatError, "rope_theta"),
        ({"rope_theta": "10000"}, FormatError, "rope_theta"),
        ({"hidden_size": None}, FormatError, "hidden_size is missing"),
        ({"hidden_size": 64.0}, FormatError, "hidden_size"),
        ({"hidden_size": -64}, FormatError, "hidden_size"),
        ({"num_hidden_layers": 10**9}, FormatError, "num_hidden_layers"),
        ({"num_attention_heads": 0}, FormatError, "num_attention_heads"),
        ({"num_key_value_heads": 3}, FormatError, "cannot share"),
        ({"head_dim": 15}, FormatError, "even"),
        ({"vocab_size": True}, FormatError, "vocab_size"),
        ({"rms_norm_eps": -1}, FormatError, "rms_norm_eps"),
        ({"tie_word_embeddings": "yes"}, FormatError, "tie_word_embeddings"),
        ({"model_type": "mistral", "sliding_window": 0}, FormatError, "sliding_window"),
    ],
)
def test_what_cannot_be_run_is_named(change, error, said):
    with pytest.raises(error, match=said) as caught:
        ModelConfig.from_dict(LLAMA | change)
    if error is UnsupportedModelError:
        assert "edgellm runs" in caught.value.hint


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["rope_type", "factor", "x"]), inner, max_size=3)
    ),
    max_leaves=4,
)


@given(
    st.sampled_from(sorted(tiny.CONFIGS)),
    st.dictionaries(
        st.sampled_from(sorted(set().union(*tiny.CONFIGS.values()))), anything, max_size=3
    ),
)
def test_any_config_is_understood_or_our_error(kind, change):
    try:
        config = ModelConfig.from_dict(tiny.CONFIGS[kind] | change)
    except EdgeLLMError:
        return
    assert config.num_attention_heads % config.num_key_value_heads == 0


def test_end_tokens_come_as_a_number_a_list_or_not_at_all():
    assert token_ids(3, 10) == {3}
    assert token_ids([3, 4, 3], 10) == {3, 4}
    for nothing in (None, [], True, "3", -1, 2.0, [None, -5], 10):
        assert token_ids(nothing, 10) == frozenset()
