"""The peers: whoever is installed computes the same from the same folder, one sequence or several."""

import importlib.util

import numpy as np
import pytest

from edgellm.bench.backends.registry import RuntimeSettings, open_runtime
from edgellm.bench.speed.timing import token_ids
from edgellm.bench.speed.variants import variant_of
from edgellm.converters.synthetic import synthesize

PEERS = {"mlx-lm": "mlx_lm", "transformers": "transformers", "llama.cpp-plain": "llama_cpp"}


@pytest.fixture(scope="module", params=[4, 16])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("peers") / "model"
    synthesize("tiny-llama", path, bits=request.param)
    return path


def opened(name, folder):
    if importlib.util.find_spec(PEERS[name]) is None:
        pytest.skip(f"{PEERS[name]} is not installed")
    path = variant_of(str(folder), None, name).path
    return open_runtime(name, str(path), RuntimeSettings(threads=1, context=64))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_says_what_edgellm_says(name, folder):
    tokens = token_ids(20, 256, 1)[0].tolist()
    ours = open_runtime(
        "mlx", str(folder), RuntimeSettings(threads=1, context=64, activations="float")
    )
    expected = ours.logits(tokens)
    ours.close()
    peer = opened(name, folder)
    try:
        found = peer.logits(tokens)
        assert found.shape == expected.shape
        spread = np.abs(expected).max()
        assert np.abs(found - expected).max() < 0.05 * spread
        assert peer.weight_bytes_per_token is None or peer.weight_bytes_per_token > 0
        assert peer.device
        assert peer.arithmetic
    finally:
        peer.close()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_goes_on_from_its_prompt_alone_and_in_a_batch(name, folder):
    peer = opened(name, folder)
    try:
        for batch in (1, 3):
            tokens = token_ids(9, 256, batch)
            peer.begin(batch=batch, capacity=16)
            peer.prompt(tokens[:, :5])
            peer.prompt(tokens[:, 5:])
            peer.decode(2)
            peer.decode(3)
    finally:
        peer.close()
