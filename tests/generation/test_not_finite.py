"""Damaged weights: every way to generate ends with an error that says where, and none goes on."""

import shutil

import mlx.core as mx
import numpy as np
import pytest
from support import tiny

import edgellm
from edgellm.errors import NotFiniteError
from edgellm.hub.resolve import BUNDLED
from edgellm.sampling.sampler import Sampler
from edgellm.settings import Sampling

PROMPT = [tiny.BEGIN, *range(20, 40)]
LAYER = "model.layers.2.mlp.down_proj.weight"
HEAD = "lm_head.weight"
DAMAGES = {
    "layer": (LAYER, (3, 5), np.nan),
    "infinite": (LAYER, (3, 5), np.inf),
    "head": (HEAD, (7, 9), np.nan),
    "norm": ("model.norm.weight", (1,), -np.inf),
    # of one token alone, which no prompt has: the others could go on
    "embedding": ("model.embed_tokens.weight", (301, 2), np.nan),
}


@pytest.fixture(scope="module")
def damaged(tiny_folder, tmp_path_factory):
    """A function that returns a model's folder with one number damaged."""

    def folder(damage):
        name, place, value = DAMAGES[damage]
        path = tmp_path_factory.mktemp("damaged") / damage
        tiny.write_model(path, tiny.CONFIGS["llama-2"])
        tensors = mx.load(str(path / "model.safetensors"))
        numbers = np.array(tensors[name])
        numbers[place] = value
        tensors[name] = mx.array(numbers)
        mx.eval(tensors)
        mx.save_safetensors(str(path / "model.safetensors"), tensors, metadata={"format": "pt"})
        return path

    return folder


@pytest.mark.parametrize("backend", ["auto", "mlx"])
@pytest.mark.parametrize("damage", ["layer", "infinite", "head", "norm"])
def test_every_way_to_generate_says_so(damage, backend, damaged):
    where = {"layer": "layer 3 are the first", "infinite": "layer 3 are the first"}
    expected = where.get(damage, "the last layer, the norm or the head")
    folder = damaged(damage)
    with edgellm.load(folder, memory="500MB", threads=1, backend=backend) as llm:
        for settings in (
            {},
            {"logprobs": True},
            {"temperature": 1.0, "seed": 1},
            {"temperature": 1.0, "top_k": 5, "top_p": 0.9, "min_p": 0.1},
            {"repetition_penalty": 1.3},
            {"beams": 3},
        ):
            with pytest.raises(NotFiniteError, match=expected) as raised:
                llm.generate(PROMPT, max_tokens=8, **settings)
            assert "edgellm verify" in raised.value.hint
        with pytest.raises(NotFiniteError, match=expected):
            llm.logits(PROMPT)
        completions = llm.generate_batch([PROMPT, PROMPT[:3]], max_tokens=3)
        assert [one.finish_reason for one in completions] == ["error"] * 2
        assert all(isinstance(one.error, NotFiniteError) for one in completions)


@pytest.mark.parametrize("activations", ["int8", "float"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize(
    "place",
    [
        ("model-layer-00003", "model.layers.3.input_layernorm.weight", "layer 3 are the first"),
        ("model-head", "model.norm.weight", "the last layer, the norm or the head"),
    ],
)
def test_quantized_products_pass_on_what_is_not_finite(place, value, activations, tmp_path):
    file, name, expected = place
    folder = shutil.copytree(BUNDLED / "stories", tmp_path / "stories")
    path = folder / f"{file}.safetensors"
    tensors = mx.load(str(path))
    # one number of a group whose others are finite
    tensors[name][70] = value
    mx.eval(tensors)
    mx.save_safetensors(str(path), tensors, metadata={"format": "mlx"})
    with edgellm.load(folder, memory="500MB", threads=1, activations=activations) as llm:
        for prompt in ("Once", "Once upon a time there was a little girl who lived in a house"):
            with pytest.raises(NotFiniteError, match=expected):
                llm.generate(prompt, max_tokens=4)


def test_a_sequence_that_meets_the_damage_does_not_end_the_others(damaged):
    with edgellm.load(damaged("embedding"), memory="500MB", threads=1) as llm:
        alone = llm.generate(PROMPT, max_tokens=6)
        assert alone.finish_reason == "length"
        llm.prefix_cache.clear()
        with pytest.raises(NotFiniteError, match="layer 0 are the first"):
            llm.generate([*PROMPT, 301, 5], max_tokens=6)
        # nothing of it stays in a cache for those that come after it
        assert list(llm.stream(PROMPT, max_tokens=6, reuse_cache=True))[-1].stats.cached_tokens == 0
        for settings in ({}, {"temperature": 1.0, "seed": 3}):
            healthy, ill, other = llm.generate_batch(
                [PROMPT, [*PROMPT, 301, 5], PROMPT[:4]], max_tokens=6, **settings
            )
            assert (healthy.finish_reason, other.finish_reason) == ("length", "length")
            assert isinstance(ill.error, NotFiniteError)
            if not settings:
                assert healthy.text == alone.text


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_draft_that_is_damaged_is_named(temperature, damaged, tiny_folder):
    folder = tiny_folder("llama-2", seed=1)
    loading = {"memory": "500MB", "threads": 1, "draft": damaged("layer")}
    with (
        edgellm.load(folder, **loading) as llm,
        pytest.raises(NotFiniteError, match="the draft model"),
    ):
        llm.generate(PROMPT, max_tokens=8, temperature=temperature)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 1.0}, {"repetition_penalty": 1.2}, {"top_k": 3}]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_bad_number_among_logits_is_enough(bad, settings, lazy):
    for place in (0, 13, 29):
        logits = np.random.RandomState(1).standard_normal((1, 30)).astype(np.float32)
        logits[0, place] = bad
        sampler = Sampler(Sampling(**settings), [1], 30, lazy=lazy)
        with pytest.raises(NotFiniteError):
            sampler(mx.array(logits)).read()


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_that_a_model_rules_out_are_never_drawn(temperature, lazy):
    logits = np.full((1, 30), -np.inf, np.float32)
    logits[0, 4] = 1.0
    sampler = Sampler(Sampling(temperature=temperature, seed=1), [], 30, lazy=lazy)
    assert {sampler(mx.array(logits)).read() for _ in range(5)} == {4}
    logits[0, 4] = -np.inf
    with pytest.raises(NotFiniteError):
        sampler(mx.array(logits)).read()
