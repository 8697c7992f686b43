"""The model's arithmetic is that of transformers and of mlx-lm."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from support import tiny
from support.counting import open_counted
from support.folders import saved_by_mlx_lm
from support.paths import GOLDEN

from edgellm.converters import convert
from edgellm.errors import ClosedError
from edgellm.models.layers import ResidentLayers

OLD_FORM = [
    name
    for name, config in tiny.CONFIGS.items()
    if "rope_parameters" not in config and "window" not in name
]
"""The configs that mlx-lm reads alike: it knows no rope_parameters and none of these windows."""

QUANTIZED = {
    "3-bit": {"bits": 3, "group_size": 64},
    "4-bit": {"bits": 4, "group_size": 32},
    "6-bit": {"bits": 6, "group_size": 64},
    "8-bit": {"bits": 8, "group_size": 32},
    "mxfp4": {"bits": 4, "group_size": 32, "mode": "mxfp4"},
    "mxfp8": {"bits": 8, "group_size": 32, "mode": "mxfp8"},
    "nvfp4": {"bits": 4, "group_size": 16, "mode": "nvfp4"},
}
FLOAT = {"activations": "float", "kv_bits": 32}
"""Exact arithmetic, where a faster one may be the default."""

ARITHMETIC = {"mlx": {"backend": "mlx"}, "best": FLOAT}
"""MLX's own kernels, which are all that a GPU has; and what runs here."""


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def greedy(llm, prompt, new):
    return [token.id for token in llm.generate(prompt, max_tokens=new).tokens]


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_logits_and_greedy_text_are_those_that_transformers_gave(kind, arithmetic, open_llm):
    known = golden(kind)
    llm = open_llm(kind, seed=known["seed"], load=ARITHMETIC[arithmetic])
    assert greedy(llm, known["prompt"], len(known["greedy"])) == known["greedy"]
    logits = np.array(llm.logits(known["prompt"]))
    for position, numbers in known["logits"].items():
        assert np.abs(logits[int(position), :: known["stride"]] - numbers).max() < 1e-4


@pytest.mark.torch
@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_logits_and_greedy_text_equal_transformers(kind, tiny_folder, open_llm):
    from make_golden import open_reference, prompt_of, reference_logits, reference_text

    folder = tiny_folder(kind, seed=golden(kind)["seed"])
    reference = open_reference(folder)
    prompt = prompt_of(np.random.RandomState(99), 70)  # longer than every window
    logits, text = (
        reference_logits(reference, prompt),
        reference_text(reference, prompt, 64, eos_token_id=tiny.END),
    )
    for settings in ARITHMETIC.values():
        llm = open_llm(folder, load=settings)
        assert np.abs(np.array(llm.logits(prompt)) - logits).max() < 1e-4
        assert greedy(llm, prompt, 64) == text


def mlx_lm_greedy(folder, prompt, new):
    """The greedy text of mlx-lm's own model, until the end token, and the logits of the prompt."""
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)
    model.set_dtype(mx.float32)  # on a CPU we compute in float32 whatever the folder's type
    caches = make_prompt_cache(model)
    logits = first = model(mx.array([prompt]), cache=caches)[0]
    text = []
    while len(text) < new and tiny.END not in text:
        text.append(int(mx.argmax(logits[-1])))
        logits = model(mx.array([text[-1:]]), cache=caches)[0]
    return text, np.array(first)


def assert_as_mlx_lm(folder, open_llm, new=12):
    prompt = golden("llama-2")["prompt"]
    text, logits = mlx_lm_greedy(folder, prompt, new)
    for settings in ARITHMETIC.values():
        llm = open_llm(folder, load=settings)
        assert np.abs(np.array(llm.logits(prompt)) - logits).max() < 1e-4
        assert greedy(llm, prompt, new) == text


@pytest.mark.parametrize("kind", OLD_FORM)
def test_a_folder_in_hugging_faces_form_means_the_same_to_mlx_lm(kind, tiny_folder, open_llm):
    folder = tiny_folder(
        kind, config={"tie_word_embeddings": tiny.CONFIGS[kind].get("tie_word_embeddings", False)}
    )
    assert_as_mlx_lm(folder, open_llm)


# which have no such mode
@pytest.mark.filterwarnings("ignore:arithmetic runs in MLX's own CPU kernels:RuntimeWarning")
@pytest.mark.parametrize(
    ("form", "kind"),
    [*((form, "llama-3.1") for form in QUANTIZED), ("4-bit", "qwen3"), ("mxfp4", "qwen3")],
)
def test_a_folder_that_mlx_lm_quantized_opens_here(form, kind, tiny_folder, open_llm, tmp_path):
    source = tiny_folder(kind, config={"tie_word_embeddings": True})
    saved_by_mlx_lm(source, tmp_path / "made", **QUANTIZED[form])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, tmp_path / "made")
    assert_as_mlx_lm(tmp_path / "made", open_llm)


def test_what_mlx_lm_convert_makes_opens_here(tiny_folder, open_llm, tmp_path):
    from mlx_lm import convert as mlx_lm_convert

    source = tiny_folder(
        "llama-2", config={"tie_word_embeddings": False}, dtype=mx.float16, shards=2
    )
    made = tmp_path / "made"
    mlx_lm_convert(str(source), str(made), quantize=True, q_bits=4, q_group_size=64)
    assert_as_mlx_lm(made, open_llm)
    assert open_llm(made).generate("Once upon a time", max_tokens=8).text


@pytest.mark.parametrize(
    ("bits", "kind"),
    [
        (2, "llama-3.2"),
        (3, "qwen2"),
        (4, "llama-3.2"),
        (4, "mistral"),
        (5, "llama-2"),
        (6, "qwen3"),
        (8, "llama-linear-new"),
        (16, "llama-3.2"),
        (16, "llama-biases"),
    ],
)
def test_a_folder_of_ours_opens_in_mlx_lm(bits, kind, tiny_folder, open_llm, tmp_path):
    made = tmp_path / "made"
    convert(tiny_folder(kind, dtype=mx.bfloat16), made, bits=bits)
    assert_as_mlx_lm(made, open_llm)


def test_on_a_cpu_arithmetic_runs_in_float32(tiny_folder):
    if mx.default_device().type == mx.DeviceType.gpu:
        pytest.skip("this MLX computes on a GPU")
    for dtype in (mx.float16, mx.bfloat16):
        for settings in ARITHMETIC.values():
            llm, layers = open_counted(tiny_folder("qwen3", dtype=dtype), **settings)
            with llm:
                llm.generate([5, 6, 7], max_tokens=3)
            assert layers.dtypes == {mx.float32}


def test_layers_that_were_closed_refuse():
    layers = ResidentLayers([])
    layers.close()
    with pytest.raises(ClosedError):
        layers.run([mx.zeros((1, 1, 4))], [[]])
