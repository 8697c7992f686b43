"""GGUF in: llama.cpp's architectures, each with transformers' logits of the same weights.

The files are written by the gguf library with its own names of the tensors.
"""

import gguf
import numpy as np
import pytest
from support.published_gguf import write_published
from support.published_models import save_model

from edgellm.converters import convert

IDS = np.random.RandomState(3).randint(5, 400, 40).tolist()
LONG, SHORT = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0], [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]


def say_granite(writer):
    writer.add_embedding_scale(3.0)
    writer.add_attention_scale(0.3)
    writer.add_residual_scale(0.5)
    writer.add_logit_scale(0.7)


def say_phi3(writer):
    writer.add_rope_dimension_count(12)
    writer.add_rope_scaling_orig_ctx_len(64)
    writer.add_rope_scaling_attn_factors(1.25)
    writer.add_sliding_window(512)


def say_windows(writer):
    writer.add_sliding_window(9)
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in WINDOWS])


def say_gemma2(writer):
    writer.add_sliding_window(9)
    writer.add_attn_logit_softcapping(2.0)
    writer.add_final_logit_softcapping(3.0)


def say_gemma3(writer):
    say_windows(writer)
    writer.add_rope_freq_base_swa(300.0)
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(8.0)


WINDOWS = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA = {"head_dim": 24, "query_pre_attn_scalar": 24, "sliding_window": 9}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": SHORT,
    "long_factor": LONG,
    "partial_rotary_factor": 0.75,
    "attention_factor": 1.25,
}
ARCHITECTURES = {
    "phi3": (
        "phi3",
        {"original_max_position_embeddings": 64, "rope_parameters": LONGROPE},
        {
            "metadata": say_phi3,
            "more": {"rope_factors_long.weight": LONG, "rope_factors_short.weight": SHORT},
        },
    ),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.5,
            "logits_scaling": 0.7,
            "tie_word_embeddings": True,
        },
        {"metadata": say_granite, "pairs": True},
    ),
    "ernie4_5": ("ernie4_5", {"head_dim": 16, "tie_word_embeddings": True}, {}),
    "seed_oss": ("seed_oss", {"head_dim": 24, "attention_out_bias": False}, {}),
    "smollm3": ("smollm3", {"num_hidden_layers": 4}, {"pairs": True}),
    "olmo2": ("olmo2", {}, {}),
    "olmo3": (
        "olmo3",
        {"layer_types": WINDOWS, "sliding_window": 9},
        {"architecture": "olmo2", "metadata": say_windows},
    ),
    "exaone4": (
        "exaone4",
        {"head_dim": 16, "sliding_window": None, "layer_types": ["full_attention"] * 3},
        {},
    ),
    "hunyuan-dense": ("hunyuan_v1_dense", {"head_dim": 16, "tie_word_embeddings": True}, {}),
    "gemma2": (
        "gemma2",
        GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        {"metadata": say_gemma2},
    ),
    "gemma3": (
        "gemma3_text",
        GEMMA
        | {
            "layer_types": WINDOWS,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
            },
        },
        {"metadata": say_gemma3},
    ),
}
"""By llama.cpp's name: transformers' name, what its config says, and what the file says."""


@pytest.mark.filterwarnings("ignore:arithmetic runs in MLX's own CPU kernels:RuntimeWarning")
@pytest.mark.torch
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_those_of_transformers(architecture, tmp_path, open_llm):
    from make_golden import open_reference, reference_logits

    family, config, said = ARCHITECTURES[architecture]
    reference = save_model(tmp_path / "model", family, **{"vocab_size": 512} | config)
    named = {"architecture": architecture} | said
    write_published(tmp_path / "model", tmp_path / "model.gguf", **named)
    convert(tmp_path / "model.gguf", tmp_path / "made", bits=16)
    expected = reference_logits(reference, IDS)
    exact = {"activations": "float", "kv_bits": 32}
    ours = np.array(open_llm(tmp_path / "made", load=exact).logits(IDS))
    again = reference_logits(open_reference(tmp_path / "made"), IDS)
    for logits in (ours, again):
        assert np.abs(logits - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())
