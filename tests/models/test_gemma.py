"""Gemma 2 and 3: what published configs leave out, packed keys, the text part of those that see.

Logits, paging, chunks and beams are held with the other families in ``test_families``.
"""

import json

import mlx.core as mx
import numpy as np
import pytest
from support import tiny
from support.paged import open_model
from support.tiny_families import CONFIGS

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.dialects.families import DIALECTS, in_llamas_words
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.converters import convert
from edgellm.errors import UnsupportedModelError

pytestmark = pytest.mark.filterwarnings(
    "ignore:arithmetic runs in MLX's own CPU kernels:RuntimeWarning"
)
PROMPT = np.random.RandomState(1).randint(5, tiny.VOCABULARY, 40).tolist()


def read(config):
    return ModelConfig.from_dict(in_llamas_words(config, DIALECTS[config["model_type"]]))


def test_what_published_configs_leave_out_is_as_in_transformers():
    """Gemma 3 4B's config says these numbers and nothing else of its text part."""
    config = read(
        {
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        }
    )
    assert (config.num_attention_heads, config.num_key_value_heads) == (8, 4)
    assert (config.head_dim, config.vocab_size) == (256, 262208)
    assert (config.rope_theta, config.local_rotary.theta) == (1e6, 10000.0)
    assert config.local_rotary.scaling is None
    assert config.tie_word_embeddings
    everywhere = [index for index in range(34) if config.layer(index).window is None]
    assert everywhere == [5, 11, 17, 23, 29]
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 4}
    older = read({"model_type": "gemma2"} | small)
    assert (older.attn_logit_softcapping, older.final_logit_softcapping) == (50.0, 30.0)
    assert [older.layer(index).window for index in range(4)] == [4096, None] * 2
    off = read({"model_type": "gemma2", "attn_logit_softcapping": None} | small)
    assert off.attn_logit_softcapping is None
    with pytest.raises(UnsupportedModelError, match="bidirectional"):
        read({"model_type": "gemma3_text", "use_bidirectional_attention": True} | small)


@pytest.mark.parametrize("bits", [8, 4])
def test_packed_keys_have_the_cap_too(bits, tmp_path):
    folder = tiny.write_model(tmp_path / "model", CONFIGS["gemma2"])
    with open_model(folder) as llm, open_model(folder, kv_bits=bits) as packed:
        expected, found = np.array(llm.logits(PROMPT)), np.array(packed.logits(PROMPT))
    assert np.abs(found - expected).mean() < {8: 0.1, 4: 0.6}[bits]


def test_the_text_part_of_a_gemma_that_sees_is_a_gemma(tmp_path):
    plain = tiny.write_model(tmp_path / "plain", CONFIGS["gemma3"])
    folder = tiny.write_model(tmp_path / "seeing", CONFIGS["gemma3"])
    weights = {
        f"language_model.{name}": value
        for name, value in mx.load(str(folder / "model.safetensors")).items()
    }
    weights["vision_tower.vision_model.post_layernorm.weight"] = mx.ones(8)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    text = json.loads((folder / "config.json").read_text())
    outer = {"model_type": "gemma3", "text_config": text, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(outer))
    convert(folder, tmp_path / "made", bits=8)
    convert(plain, tmp_path / "expected", bits=8)
    assert read_checkpoint(tmp_path / "made").config.model_type == "gemma3_text"
    with (
        open_model(tmp_path / "made") as llm,
        open_model(tmp_path / "expected") as expected,
        open_model(folder) as as_it_is,
        open_model(plain) as unconverted,
    ):
        assert mx.array_equal(llm.logits(PROMPT), expected.logits(PROMPT))
        assert mx.array_equal(as_it_is.logits(PROMPT), unconverted.logits(PROMPT))
