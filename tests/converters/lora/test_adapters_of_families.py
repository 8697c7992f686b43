"""Adapters of families that are LLaMA under another name."""

import mlx.core as mx
import numpy as np
import pytest
from support.adapters import LLAMA, factors, trained_by_peft, write_peft
from support.folders import change, fused, tensors_of
from support.published_models import save_model
from support.tiny import write_model

from edgellm.checkpoint.dialects.names import spelled
from edgellm.converters import convert
from edgellm.converters.lora.adapter import read_adapter
from edgellm.converters.lora.our_words import in_our_words

GRANITE = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.3,
    "residual_multiplier": 0.5,
    "logits_scaling": 0.7,
}
TIE = {"tie_word_embeddings": True}


def neighbours(rows):
    """Return rows of heads of 16 as Helium has them: what turns together side by side."""
    return rows.reshape(-1, 2, 8, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def as_phi3(tensors):
    arrays = fused({name: np.array(value) for name, value in tensors.items()})
    tensors.clear()
    tensors |= {name: mx.array(value) for name, value in arrays.items()}


def as_helium(tensors):
    for name, value in tensors.items():
        if "q_proj" in name or "k_proj" in name:
            tensors[name] = mx.array(np.ascontiguousarray(neighbours(np.array(value))))


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")  # PEFT's own
@pytest.mark.parametrize(
    ("family", "numbers", "more"),
    [
        ("phi3", {}, {"use_dora": True}),
        ("helium", {"head_dim": 16}, {"use_dora": True}),
        ("ernie4_5", {"head_dim": 16, "use_bias": True}, {"rank_pattern": {"k_proj": 2}}),
        ("granite", GRANITE, {"modules_to_save": ["lm_head", "norm"]}),
        ("granite", GRANITE | TIE, {"target_modules": ["q_proj", "embed_tokens"]}),
        ("granite", GRANITE | TIE, {"trainable_token_indices": [3, 300]}),
    ],
)
def test_adapters_of_a_family_with_words_of_its_own(tmp_path, family, numbers, more):
    """What lies in one matrix, in another order, or times a number is so in the adapter, too."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    import torch
    from transformers import AutoModelForCausalLM

    save_model(tmp_path / "base", family, num_hidden_layers=1, **numbers)
    more = {"target_modules": "all-linear"} | more
    model = trained_by_peft(peft, tmp_path / "base", **more).eval()
    model.save_pretrained(tmp_path / "adapter")
    convert(tmp_path / "base", tmp_path / "made", bits=16, adapter=tmp_path / "adapter")
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "made", dtype=torch.float32)
    ids = torch.tensor([[1, 3, 9, 7, 200]])
    with torch.no_grad():
        expected, got = model(ids).logits, made(ids).logits
    assert float((expected - got).abs().max()) < 1e-5 * max(1.0, float(expected.abs().max()))


def test_an_adapters_rows_lie_as_its_models_do(tmp_path):
    """A Phi-3 of the same numbers as a LLaMA, and a Helium in another order, become the same."""
    attention, rows = "model.layers.1.self_attn", [64, 32, 32]
    down, up = factors((sum(rows), 64), 5)
    apart = np.split(up, np.cumsum(rows)[:-1])
    plain = {}
    for letter, part in zip("qkv", apart, strict=True):
        plain |= {f"{attention}.{letter}_proj.lora_A.weight": down}
        plain |= {f"{attention}.{letter}_proj.lora_B.weight": part}
    base = write_model(tmp_path / "llama", LLAMA)
    convert(base, tmp_path / "made", bits=16, adapter=write_peft(tmp_path / "plain", plain))
    expected = {name: np.array(value) for name, value in tensors_of(tmp_path / "made").items()}

    in_one = {f"{attention}.qkv_proj.lora_A.weight": down}
    in_one[f"{attention}.qkv_proj.lora_B.weight"] = up
    paired = dict(plain)
    for letter, part in zip("qk", apart[:2], strict=True):
        paired[f"{attention}.{letter}_proj.lora_B.weight"] = neighbours(part)
    for family, edit, tensors in (("phi3", as_phi3, in_one), ("helium", as_helium, paired)):
        config = LLAMA | {"model_type": family, "head_dim": 16}
        folder = write_model(tmp_path / family, LLAMA)
        change(folder, edit, config=config)
        adapter = write_peft(tmp_path / f"{family} adapter", tensors)
        convert(folder, tmp_path / f"{family} made", bits=16, adapter=adapter)
        for name, value in tensors_of(tmp_path / f"{family} made").items():
            assert np.array_equal(np.array(value), expected[name]), (family, name)


def test_matrices_that_an_adapters_maker_took_apart_are_still_multiplied(tmp_path):
    """mlx-lm names Granite 4's matrices as ours, and multiplies as the model does."""
    config = LLAMA | GRANITE | {"model_type": "granitemoehybrid", "layer_types": ["attention"]}
    config |= {"num_hidden_layers": 1, "shared_intermediate_size": 80}
    config |= {"position_embedding_type": "rope"}
    shapes = {
        "model.embed_tokens.weight": (320, 64),
        "model.layers.0.shared_mlp.input_linear.weight": (160, 64),
        "model.layers.0.shared_mlp.output_linear.weight": (64, 80),
    }
    paths = [f"model.layers.0.mlp.{name}_proj" for name in ("up", "down")]
    tensors = {}
    for path, shape in zip(paths, [(80, 64), (64, 80)], strict=True):
        down, up = factors(shape, 1)
        tensors |= {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}
    adapter = read_adapter(write_peft(tmp_path / "adapter", tensors))
    changes = in_our_words(adapter, spelled(config, shapes)).changes
    assert [changes[path].part.factor for path in paths] == [1.0, GRANITE["residual_multiplier"]]
    assert [changes[path].shape for path in paths] == [(80, 64), (64, 80)]
