"""mlx-lm's adapters: merged as its own fuse does, and what their config may say."""

import mlx.core as mx
import numpy as np
import pytest
from support.adapters import LLAMA, PATHS, RANK, TIED, trained_by_mlx_lm, write_mlx
from support.folders import tensors_of
from support.tiny import write_model

from edgellm.converters import convert
from edgellm.converters.lora.adapter import read_adapter
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.strict_json import read_json

ONES = {
    f"{PATHS[0]}.lora_a": mx.ones((64, RANK)),
    f"{PATHS[0]}.lora_b": mx.ones((RANK, 64)),
}


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("bits", [16, 4])
def test_mlx_lms_adapters_are_merged_as_its_own_fuse_does(tmp_path, kind, bits):
    convert(write_model(tmp_path / "plain", LLAMA), tmp_path / "base", bits=bits)
    model = trained_by_mlx_lm(tmp_path / "base", tmp_path / "adapter", kind=kind)
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
    from mlx_lm.utils import load_model

    base, adapter = write_model(tmp_path / "base", TIED), tmp_path / "adapter"
    keys = ["self_attn.q_proj", "model.embed_tokens"]
    model = trained_by_mlx_lm(base, adapter, keys, kind)
    convert(base, tmp_path / "made", bits=16, adapter=adapter)
    assert read_json(tmp_path / "made" / "config.json")["tie_word_embeddings"] is True
    made, _ = load_model(tmp_path / "made")
    ids = mx.array([[1, 5, 9, 200]])
    assert np.allclose(np.array(made(ids)), np.array(model(ids)), atol=1e-4)


def test_full_fine_tunes_of_mlx_lm_are_taken(tmp_path):
    weight = np.random.RandomState(2).standard_normal((64, 64)).astype(np.float32)
    adapter = write_mlx(
        tmp_path / "adapter", {f"{PATHS[0]}.weight": mx.array(weight)}, fine_tune_type="full"
    )
    base = write_model(tmp_path / "base", LLAMA)
    convert(base, tmp_path / "made", bits=16, adapter=adapter)
    assert np.array_equal(np.array(tensors_of(tmp_path / "made")[f"{PATHS[0]}.weight"]), weight)


def test_mlx_lms_options_of_the_training_have_no_effect(tmp_path):
    parameters = {"rank": RANK, "alpha": 16.0, "scale": 7.0, "dropout": 0.1, "keys": ["q_proj"]}
    training = {"grad_checkpoint": True, "lr_schedule": {"name": "cosine"}, "seed": 5, "mine": [1]}
    found = read_adapter(write_mlx(tmp_path / "x", ONES, lora_parameters=parameters, **training))
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
        read_adapter(write_mlx(tmp_path / "x", ONES, **config))
