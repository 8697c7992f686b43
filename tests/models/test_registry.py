"""A family that is not LLaMA's is a block and a row: here one is made up, and runs."""

import json
import shutil
import warnings
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from support.counting import paged_settings

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.family_configs import FAMILIES, PRE_NORM, Family
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.errors import UnsupportedModelError
from edgellm.models.arithmetic import KERNEL_FAMILIES, warn_slow
from edgellm.models.llama import Block, RMSNorm
from edgellm.models.registry import block_class

SCALE = 3.0
QUIET = "ignore:arithmetic runs in MLX's own CPU kernels:RuntimeWarning"


class MadeUpBlock(Block):
    """Norms of what differs from 1, a ReLU gate, one norm more, scaled embeddings."""

    @staticmethod
    def gate(gate, up):
        return mx.maximum(gate, 0.0) * up

    @classmethod
    def norm(cls, weight, config):
        return RMSNorm(1.0 + weight, config.rms_norm_eps)

    @classmethod
    def embedding_scale(cls, config):
        return SCALE

    def read_norms(self, norms):
        super().read_norms(norms)
        self.last_layernorm = norms["last_layernorm"]

    def __call__(self, hidden, spans, *, many=False):
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), spans)
        return hidden + self.last_layernorm(self.mlp(self.post_attention_layernorm(hidden)))


@pytest.fixture
def made_up(monkeypatch):
    """The row of the made-up family."""
    row = Family(
        block=f"{__name__}:MadeUpBlock",
        activations=("relu",),
        norms=replace(PRE_NORM, after_mlp="last_layernorm"),
    )
    monkeypatch.setitem(FAMILIES, "made-up", row)


def changed_folder(folder, target, *, config, tensors):
    """A copy of a folder with other keys in its config, and its tensors sent through a function."""
    shutil.copytree(folder, target)
    raw = json.loads((target / "config.json").read_text()) | config
    (target / "config.json").write_text(json.dumps(raw))
    weights = mx.load(str(target / "model.safetensors"))
    mx.save_safetensors(str(target / "model.safetensors"), tensors(weights))
    return target


def as_made_up(weights):
    """LLaMA's weights in the made-up family's form, and those of a norm more in each layer."""
    changed = {}
    for name, weight in weights.items():
        changed[name] = weight
        if "norm" in name:
            changed[name] = weight - 1.0
        if name == "model.embed_tokens.weight":
            changed[name] = weight / SCALE
        if name.endswith(".input_layernorm.weight"):
            extra = name.replace("input_layernorm", "last_layernorm")
            changed[extra] = mx.full(weight.shape, 0.25)
    return changed


@pytest.fixture
def folders(tiny_folder, tmp_path):
    """A tiny LLaMA whose embedding is not tied, and its weights in the made-up family's form."""
    llama = tiny_folder("llama-2", config={"tie_word_embeddings": False})
    config = {"model_type": "made-up", "hidden_act": "relu"}
    return llama, changed_folder(llama, tmp_path / "made-up", config=config, tensors=as_made_up)


def reference_logits(llm, ids, folder):
    """The made-up family's logits by NumPy's products and MLX's attention of the LLaMA block."""
    checkpoint = read_checkpoint(folder)
    config = checkpoint.config
    weights = mx.load(str(folder / "model.safetensors"))

    def norm(x, name):
        scale = np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_norm_eps)
        return x / scale * (1.0 + np.array(weights[f"{name}.weight"]))

    def times(x, name):
        return x @ np.array(weights[f"{name}.weight"]).T

    states = np.array(weights["model.embed_tokens.weight"])[ids] * SCALE
    for index in range(config.num_hidden_layers):
        layer = f"model.layers.{index}"
        states = states + attended(config, norm(states, f"{layer}.input_layernorm"), times, layer)
        x = norm(states, f"{layer}.post_attention_layernorm")
        gate = np.maximum(times(x, f"{layer}.mlp.gate_proj"), 0.0)
        added = times(gate * times(x, f"{layer}.mlp.up_proj"), f"{layer}.mlp.down_proj")
        states = states + norm(added, f"{layer}.last_layernorm")
    return times(norm(states, "model.norm"), "lm_head")


def attended(config, x, times, layer):
    """Attention's part (L, E) for normalized states (L, E), in NumPy."""
    length, size = len(x), config.head_dim
    angles = np.arange(length)[:, None] / config.rope_theta ** (np.arange(0, size, 2) / size)

    def heads(name, count):
        return times(x, f"{layer}.self_attn.{name}_proj").reshape(length, count, size)

    def rotated(states):
        first, second = np.split(states, 2, axis=-1)
        cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
        return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)

    queries = rotated(heads("q", config.num_attention_heads))
    keys = rotated(heads("k", config.num_key_value_heads))
    values = heads("v", config.num_key_value_heads)
    group = config.num_attention_heads // config.num_key_value_heads
    keys, values = np.repeat(keys, group, axis=1), np.repeat(values, group, axis=1)
    scores = np.einsum("qhd,khd->hqk", queries, keys) / size**0.5
    scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    seen = np.einsum("hqk,khd->qhd", weights, values).reshape(length, -1)
    return times(seen, f"{layer}.self_attn.o_proj")


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("backend", ["auto", "mlx"])
def test_a_made_up_family_runs_by_its_row_and_its_block(backend, folders, open_llm):
    _, folder = folders
    llm = open_llm(folder, load={"backend": backend})
    ids = [3, 1, 4, 1, 5, 92, 65, 35]
    expected = reference_logits(llm, ids, folder)
    assert np.abs(np.array(llm.logits(ids)) - expected).max() < 1e-4
    assert len(llm.generate(ids, max_tokens=4).tokens) == 4


@pytest.mark.filterwarnings(QUIET)
@pytest.mark.usefixtures("made_up")
def test_a_made_up_family_streams_as_it_computes_in_memory(folders, open_llm):
    _, folder = folders
    ids = [3, 1, 4, 1, 5]
    resident = open_llm(folder, load={"context": 64})
    paged = open_llm(folder, load=paged_settings(folder, context=64))
    assert paged.plan.streamed
    assert mx.array_equal(paged.logits(ids), resident.logits(ids))


@pytest.mark.usefixtures("made_up", "on_the_cpu")
def test_a_family_without_kernels_says_so_once(folders, open_llm):
    llama, folder = folders
    warn_slow.cache_clear()
    with pytest.warns(RuntimeWarning, match="no kernels for models of type made-up"):
        open_llm(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_llm(folder)
        open_llm(llama)


def test_the_kernels_families_are_in_the_table():
    assert FAMILIES.keys() >= KERNEL_FAMILIES


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_row_names_a_block(name, tiny_folder):
    config = ModelConfig.from_dict(
        json.loads((tiny_folder("llama-2") / "config.json").read_text()) | {"model_type": name}
    )
    assert issubclass(block_class(config), Block)


@pytest.mark.usefixtures("made_up")
def test_an_unknown_family_is_told_the_known_ones():
    for unknown in ("gemma9", None, ["llama"]):
        with pytest.raises(UnsupportedModelError, match="is not supported") as raised:
            ModelConfig.from_dict({"model_type": unknown})
        assert "smollm3, made-up; and converts: ernie4_5, gemma3, granite" in raised.value.hint
