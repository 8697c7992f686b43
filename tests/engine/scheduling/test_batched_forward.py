"""The forward of several sequences: each gets the logits that it would get alone."""

import numpy as np
import pytest
from support import tiny
from support.engines import open_context

from edgellm.engine.scheduling.batched_forward import SequenceInput, forward

PROMPT = [tiny.BEGIN, *range(20, 60)]


@pytest.mark.parametrize(
    ("kind", "load"),
    [
        ("llama-2", {"activations": "float"}),
        ("mistral-window", {"backend": "mlx"}),
        ("qwen3", {"backend": "mlx"}),
    ],
)
def test_logits_for_rows_of_several_sequences(kind, load, tiny_folder):
    """Also in MLX's own arithmetic, where rows of a batch differ by rounding alone."""
    prompts = [PROMPT[:3], PROMPT[:17], PROMPT, PROMPT[:1]]
    with open_context(tiny_folder(kind), **load) as context:
        model = context.model
        caches = [context.make_caches(64) for _ in prompts]
        inputs = [SequenceInput(*pair) for pair in zip(prompts, caches, strict=True)]
        first, first_passes = forward(model, inputs, prefill_chunk=16)
        inputs = [SequenceInput([9 + n], own, needs_logits=n != 1) for n, own in enumerate(caches)]
        second, second_passes = forward(model, inputs, prefill_chunk=16)
        assert first.shape == (4, tiny.VOCABULARY)
        assert second.shape == (3, tiny.VOCABULARY)
        assert second_passes == 1 <= first_passes
        rows = iter(np.array(second))
        for n, prompt in enumerate(prompts):
            tokens = [*prompt, 9 + n]
            alone, _ = forward(
                model, [SequenceInput(prompt, context.make_caches(64))], prefill_chunk=512
            )
            np.testing.assert_allclose(np.array(first[n]), np.array(alone[0]), atol=2e-4)
            if n != 1:
                alone, _ = forward(
                    model, [SequenceInput(tokens, context.make_caches(64))], prefill_chunk=512
                )
                np.testing.assert_allclose(next(rows), np.array(alone[0]), atol=2e-4)


def test_where_nobody_wants_to_go_on_there_are_no_logits(tiny_folder):
    with open_context(tiny_folder("llama-2")) as context:
        inputs = [SequenceInput([5], context.make_caches(64))]
        assert forward(context.model, inputs, prefill_chunk=16, keep_going=lambda: False) == (
            None,
            0,
        )
