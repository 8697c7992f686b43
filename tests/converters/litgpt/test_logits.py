"""Logits of LitGPT's own model (0.5.13), of the same weights."""

import numpy as np
import pytest
from support.litgpt_files import litgpt_tensors, model_config, write_litgpt
from support.tiny import CONFIGS, random_tensors, write_tokenizer

import edgellm
from edgellm.converters import convert

TOKENS = [3, 50, 7, 120, 9]
SMALL = {"num_hidden_layers": 2, "tie_word_embeddings": False}
FAMILIES = {
    "llama": CONFIGS["llama-2"] | SMALL,
    "mistral": CONFIGS["mistral-window"] | SMALL | {"sliding_window": 3},
    "qwen2": CONFIGS["qwen2"] | SMALL | {"sliding_window": None},
    "qwen3": CONFIGS["qwen3"] | SMALL,
}
LAST_LOGITS = {
    "llama": [-0.928400, 1.132631, -0.477677, -0.203338],
    "mistral": [-2.685148, 0.423617, 0.629081, -0.664023],
    "qwen2": [1.653136, 0.159749, 2.080110, -2.970767],
    "qwen3": [0.842692, 1.253776, 0.466747, -2.203412],
}
"""The first four logits after TOKENS, of LitGPT 0.5.13 with torch 2.13.0 in float32."""


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_litgpts(tmp_path, family):
    source = write_litgpt(tmp_path / "lit", FAMILIES[family], interleaved=True)
    write_tokenizer(source)
    convert(source, tmp_path / "made", bits=16)
    with edgellm.load(tmp_path / "made", kv_bits=32) as llm:
        logits = np.array(llm.logits(TOKENS))[-1, :4]
    assert np.allclose(logits, LAST_LOGITS[family], atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_numbers_above_are_litgpts(tmp_path, family):
    torch = pytest.importorskip("torch")
    litgpt = pytest.importorskip("litgpt")
    config = FAMILIES[family]
    (tmp_path / "model_config.yaml").write_text(model_config(config))
    model = litgpt.GPT(litgpt.Config.from_file(tmp_path / "model_config.yaml"))
    for interleaved in (False, True):
        tensors = litgpt_tensors(config, random_tensors(config), interleaved=interleaved)
        model.load_state_dict({name: torch.from_numpy(item) for name, item in tensors.items()})
        with torch.no_grad():
            logits = model(torch.tensor([TOKENS]))[0, -1, :4].numpy()
        assert np.allclose(logits, LAST_LOGITS[family], atol=2e-5)
