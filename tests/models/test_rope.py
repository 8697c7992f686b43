"""Rotary positions: transformers' frequencies, for every scaling, and what becomes of heads."""

import math

import mlx.core as mx
import numpy as np
import pytest

from edgellm.checkpoint.dialects.rotary import RopeScaling
from edgellm.models.rope import wavelengths

LLAMA3 = RopeScaling(
    kind="llama3",
    factor=32.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
)


def test_unscaled_frequencies_fall_from_one_to_theta():
    lengths = wavelengths(64, 10000.0, None)
    assert lengths.dtype == np.float32
    assert lengths[0] == 1
    np.testing.assert_allclose(lengths, [10000 ** (2 * pair / 64) for pair in range(32)], rtol=1e-6)


def test_linear_scaling_stretches_every_pair():
    scaled = wavelengths(32, 5000.0, RopeScaling(kind="linear", factor=4.0))
    np.testing.assert_allclose(scaled, 4 * wavelengths(32, 5000.0, None), rtol=1e-6)


def test_llama3_scaling_as_its_authors_wrote_it():
    """Written from Meta's reference code (``apply_scaling`` of llama-models), pair by pair."""
    lengths = []
    for pair in range(64):
        frequency = 500000.0 ** (-2 * pair / 128)
        length = 2 * math.pi / frequency
        if length > 8192 / 1.0:
            frequency /= 32
        elif length >= 8192 / 4.0:
            smooth = (8192 / length - 1.0) / (4.0 - 1.0)
            frequency = (1 - smooth) * frequency / 32 + smooth * frequency
        lengths.append(1 / frequency)
    scaled = wavelengths(128, 500000.0, LLAMA3)
    np.testing.assert_allclose(scaled, lengths, rtol=1e-6)
    unscaled = wavelengths(128, 500000.0, None)
    assert scaled[0] == unscaled[0]
    np.testing.assert_allclose(scaled[-1], 32 * unscaled[-1], rtol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("scaling", [None, LLAMA3, RopeScaling(kind="linear", factor=3.5)])
@pytest.mark.parametrize(("head_dim", "theta"), [(128, 500000.0), (24, 10000.0)])
def test_frequencies_are_those_of_transformers(scaling, head_dim, theta):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    parameters = {"rope_theta": theta, "rope_type": scaling.kind if scaling else "default"}
    if scaling:
        parameters["factor"] = scaling.factor
    if scaling is LLAMA3:
        parameters |= {
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    config = LlamaConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        head_dim=head_dim,
        rope_parameters=parameters,
    )
    frequencies = LlamaRotaryEmbedding(config).inv_freq.numpy()
    np.testing.assert_allclose(wavelengths(head_dim, theta, scaling), 1 / frequencies, rtol=2e-6)


def test_a_pair_turns_by_position_over_wavelength():
    """MLX takes wavelengths for frequencies, and pairs a feature with the one half a head away."""
    lengths = wavelengths(8, 100.0, None)
    x = np.random.RandomState(0).standard_normal((1, 1, 1, 8)).astype(np.float32)
    for position in (0, 1, 77):
        turned = mx.fast.rope(
            mx.array(x),
            8,
            traditional=False,
            base=None,
            scale=1.0,
            offset=position,
            freqs=mx.array(lengths),
        )
        angle = position / lengths.astype(np.float64)
        first, second = x[..., :4], x[..., 4:]
        expected = [
            first * np.cos(angle) - second * np.sin(angle),
            first * np.sin(angle) + second * np.cos(angle),
        ]
        np.testing.assert_allclose(np.array(turned), np.concatenate(expected, axis=-1), atol=2e-5)
