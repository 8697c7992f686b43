"""Whether the bundled model computes right on this machine; each trial says what it found, or raises what went wrong."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import mlx.core as mx

from edgellm.converters import convert
from edgellm.errors import EdgeLLMError
from edgellm.hub.resolve import locate
from edgellm.llm import LLM
from edgellm.open_llm import load
from edgellm.settings import DEFAULT_MODEL, LoadSettings

PROMPT = "Once upon a time, there was a little dog who"
CLOSE = 0.05
"""How far logits may be from those of the dequantized weights, on average, in their standard deviation. Activations rounded to
int8 make 0.008 of it; scales that are off by one group make more than 1."""


def paged_is_resident() -> str:
    """Logits with half of the layers streamed are those of the resident model, bit for bit, also in later passes."""
    settings = LoadSettings(context=64, prefill_chunk=16)
    with load(DEFAULT_MODEL, settings) as resident:
        ids = resident.tokenizer.encode(PROMPT)
        expected = resident.logits(ids)
        layers = [layer.layout.nbytes for layer in resident.checkpoint.layers]
        budget = resident.plan.total_bytes - sum(layers) // 4
    with load(DEFAULT_MODEL, settings, memory=budget) as paged:
        if paged.plan.resident or paged.plan.prefill_chunk != settings.prefill_chunk:
            raise EdgeLLMError(f"a budget of {budget} bytes did not make it page as it should")
        same = all(bool(mx.array_equal(paged.logits(ids), expected)) for _ in range(3))
        streamed = len(paged.plan.streamed)
    if not same:
        raise EdgeLLMError(
            f"logits differ from the resident model's, with {streamed} layers streamed"
        )
    return f"{streamed} of {len(layers)} layers streamed"


def quantized_is_dequantized() -> str:
    """Logits are nearly those of the same weights dequantized; that they are not equal is the activations' rounding."""

    def logits(llm: LLM) -> list[mx.array]:
        """Of a prompt and of a single token, which other kernels compute."""
        ids = llm.tokenizer.encode(PROMPT)
        return [llm.logits(ids), llm.logits(ids[:1])]

    with load(DEFAULT_MODEL) as quantized:
        found = logits(quantized)
    with tempfile.TemporaryDirectory(prefix="edgellm-doctor-") as folder:
        convert(locate(DEFAULT_MODEL), Path(folder) / "plain", bits=16, dtype="float32")
        with load(Path(folder) / "plain") as plain:
            expected = logits(plain)
    off = [
        float(mx.mean(mx.abs(one - other)) / mx.std(other))
        for one, other in zip(found, expected, strict=True)
    ]
    if not max(off) < CLOSE:
        raise EdgeLLMError(f"logits are off by {max(off):.1e} of their standard deviation")
    return f"off by {max(off):.1e} of the logits' standard deviation"


def threads_agree() -> str:
    """A model that was loaded in one thread gives the same text in another."""
    texts: list[str] = []

    def answer() -> None:
        texts.append(llm.generate(PROMPT, max_tokens=8).text)

    with load(DEFAULT_MODEL) as llm:
        thread = threading.Thread(target=answer)
        thread.start()
        thread.join()
        answer()
    if len(texts) != 2 or texts[0] != texts[1]:
        raise EdgeLLMError("two threads do not get the same text")
    return "the same text"
