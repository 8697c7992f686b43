"""Other people's runtimes compute the same from the same folder, one sequence or several."""

import json

import numpy as np
import pytest
from support import tiny

from edgellm.bench.backends.registry import RuntimeSettings, backend_named, open_runtime
from edgellm.bench.speed.timing import token_ids
from edgellm.bench.speed.variants import prepare_variant
from edgellm.converters.synthetic import synthesize

PEERS = ("mlx-lm", "transformers", "llama.cpp-plain")


@pytest.fixture(scope="module", params=[4, 16])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("peers") / "model"
    synthesize("tiny-llama", path, bits=request.param)
    return path


@pytest.fixture
def open_backend(folder):
    """A function that loads the folder in a backend, or skips where it is not installed."""
    opened = []

    def open_named(name, **settings):
        missing = backend_named(name).missing_packages
        if missing:
            pytest.skip(f"{' and '.join(missing)} is not installed")
        path = prepare_variant(str(folder), None, name).path
        settings = RuntimeSettings(threads=1, context=64, **settings)
        opened.append(open_runtime(name, str(path), settings))
        return opened[-1]

    yield open_named
    for runtime in opened:
        runtime.close()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_has_the_logits_of_edgellm(name, open_backend):
    tokens = token_ids(20, 256, 1)[0].tolist()
    peer = open_backend(name)
    expected = open_backend("edgellm", activations="float").logits(tokens)
    logits = peer.logits(tokens)
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()
    assert peer.weight_bytes_per_token > 0
    assert peer.device
    assert peer.arithmetic


FOLDERS = {
    "saved by transformers 5": {
        "rope_theta": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
    },
    "a head of its own": {"tie_word_embeddings": True},
    "yarn with its own factor": {
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
            "attention_factor": 1.5,
        }
    },
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["mlx-lm", "transformers"])
@pytest.mark.parametrize("kind", FOLDERS)
def test_a_peer_is_given_the_settings_that_it_reads_otherwise(kind, name, tmp_path):
    missing = backend_named(name).missing_packages
    if missing:
        pytest.skip(f"{' and '.join(missing)} is not installed")
    config = {
        key: value
        for key, value in (tiny.CONFIGS["llama-3"] | FOLDERS[kind]).items()
        if value is not None
    }
    untied = config | {"tie_word_embeddings": False}
    folder = str(tiny.write_model(tmp_path / "model", untied))
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    settings = RuntimeSettings(threads=1, context=64, activations="float", kv_bits=32)
    ids = np.random.RandomState(0).randint(5, tiny.VOCABULARY, 48).tolist()
    ours, peer = (open_runtime(backend, folder, settings) for backend in ("edgellm", name))
    assert np.abs(ours.logits(ids) - peer.logits(ids)).max() < 1e-4
    ours.close()
    peer.close()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ["edgellm", *PEERS])
def test_steps_take_the_tokens_that_logits_of_the_whole_text_say(name, batch, open_backend):
    """A prompt in two pieces and five steps, against prompts that are a token longer each."""
    runtime = open_backend(name)
    prompts = token_ids(9, 256, batch)
    texts = prompts.tolist()
    for text in texts:
        for _ in range(6):
            text.append(int(runtime.logits(text)[-1].argmax()))
    runtime.begin(batch=batch, capacity=16)
    runtime.prefill(prompts[:, :5])
    runtime.prefill(prompts[:, 5:])
    assert runtime.last_tokens() == [text[9] for text in texts]
    runtime.decode(2)
    assert runtime.last_tokens() == [text[11] for text in texts]
    runtime.decode(3)
    assert runtime.last_tokens() == [text[14] for text in texts]
