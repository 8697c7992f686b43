"""Log-probabilities of tokens by the model's own logits: no penalty, filter or temperature."""

# B sequences, V vocabulary

from __future__ import annotations

import mlx.core as mx


def log_probabilities(logits: mx.array) -> mx.array:
    """Return the natural log-probabilities (B, V) in float32 under logits (B, V)."""
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def log_probability(logits: mx.array, tokens: mx.array) -> mx.array:
    """Return the natural log-probabilities (B,) in float32 of tokens (B,) under logits (B, V)."""
    logits = logits.astype(mx.float32)
    own = mx.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    # not taken from log_probabilities: no array (B, V) is written for B numbers
    return own - mx.logsumexp(logits, axis=-1)
