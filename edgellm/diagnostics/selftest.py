"""Self-tests of the bundled model's arithmetic on this machine, for ``edgellm doctor``.

Each returns what it found, or raises EdgeLLMError that says what went wrong.
"""

from __future__ import annotations

import threading

import mlx.core as mx

from edgellm.converters import convert
from edgellm.errors import EdgeLLMError
from edgellm.files.locations import temporary_folder
from edgellm.hub.resolve import locate
from edgellm.llm import LLM
from edgellm.open_llm import load
from edgellm.settings import DEFAULT_MODEL, LoadSettings

REPORT = "report it with all that edgellm doctor prints"
"""The next step where arithmetic is wrong: nothing that a person could mend."""

PROMPT = "Once upon a time, there was a little dog who"

MAX_ERROR = 0.05
"""Mean error of logits against dequantized weights, in the logits' standard deviation.

Activations rounded to int8 make 0.008 of it; scales that are off by one group make more than 1.
"""


def paged_is_resident() -> str:
    """Compare logits with half of the layers streamed to the resident model's, bit for bit."""
    settings = LoadSettings(context=64, prefill_chunk=16)
    with load(DEFAULT_MODEL, settings) as resident:
        ids = resident.tokenizer.encode(PROMPT)
        expected = resident.logits(ids)
        budget = resident.plan.total_bytes - resident.plan.pinned_bytes // 4
    with load(DEFAULT_MODEL, settings, memory=budget) as paged:
        if paged.plan.resident or paged.plan.prefill_chunk != settings.prefill_chunk:
            raise EdgeLLMError(
                f"a budget of {budget} bytes did not make it page as it should", hint=REPORT
            )
        # Three passes: layers are read again into buffers that held others.
        same = all(bool(mx.array_equal(paged.logits(ids), expected)) for _ in range(3))
        streamed = len(paged.plan.streamed)
    if not same:
        raise EdgeLLMError(
            f"logits differ from the resident model's, with {streamed} layers streamed", hint=REPORT
        )
    return f"{streamed} of {resident.config.num_hidden_layers} layers streamed"


def quantized_is_dequantized() -> str:
    """Compare logits to those of the same weights dequantized; activations' rounding is allowed."""
    with load(DEFAULT_MODEL) as quantized:
        found = _logits(quantized)
    with temporary_folder() as folder:
        convert(locate(DEFAULT_MODEL), folder / "plain", bits=16, dtype="float32")
        with load(folder / "plain") as plain:
            expected = _logits(plain)
    error = max(map(_relative_error, found, expected))
    if not error < MAX_ERROR:  # also where it is not a number
        raise EdgeLLMError(
            f"logits are off by {error:.1e} of their standard deviation", hint=REPORT
        )
    return f"off by {error:.1e} of the logits' standard deviation"


def threads_agree() -> str:
    """Compare the texts that a model gives in the thread that loaded it and in another one."""
    texts: list[str] = []
    with load(DEFAULT_MODEL) as llm:
        thread = threading.Thread(target=_append_text, args=(llm, texts))
        thread.start()
        thread.join()
        _append_text(llm, texts)
    if len(texts) != 2 or texts[0] != texts[1]:
        raise EdgeLLMError("two threads do not get the same text", hint=REPORT)
    return "the same text"


def _logits(llm: LLM) -> list[mx.array]:
    """Return the logits of a prompt, and of a single token, which other kernels compute."""
    ids = llm.tokenizer.encode(PROMPT)
    return [llm.logits(ids), llm.logits(ids[:1])]


def _relative_error(found: mx.array, expected: mx.array) -> float:
    return float(mx.mean(mx.abs(found - expected)) / mx.std(expected))


def _append_text(llm: LLM, texts: list[str]) -> None:
    texts.append(llm.generate(PROMPT, max_tokens=8).text)
