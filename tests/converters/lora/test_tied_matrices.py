"""Adapters of models whose head is their embedding."""

import mlx.core as mx
import numpy as np
import pytest
from support.adapters import PATHS, TIED, peft_tensors, trained_by_peft, write_peft
from support.folders import tensors_of
from support.tiny import write_model

from edgellm import load
from edgellm.converters import convert
from edgellm.files.strict_json import read_json


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
    model = trained_by_peft(peft, base, target_modules=["q_proj"], **more)
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
        {"target_modules": ["lm_head"], "trainable_token_indices": [3, 7]},
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
    model = trained_by_peft(peft, base, **more).eval()
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
