"""Measure the perplexity of held-out documents, for models and kinds of KV cache.

    python -m edgellm.bench.evaluation.perplexity FILE MODEL [MODEL ...]
        [--separator TEXT] [--limit TOKENS] [--kv-bits 16 8 4]

Each document stands alone, after the model's first token; a longer one is cut at the window.
Perplexity is exp(mean negative log-likelihood per token), in float32 sums.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import mlx.core as mx

from edgellm.hub.resolve import locate
from edgellm.llm import LLM
from edgellm.memory_plan.kv_quality import record_kv_loss
from edgellm.open_llm import load


@dataclass(frozen=True, slots=True)
class Perplexity:
    """The result over ``tokens`` predicted tokens, and the seconds that it took."""

    perplexity: float
    tokens: int
    seconds: float


def measure(
    llm: LLM, documents: Iterable[Sequence[int]], *, limit: int | None = None
) -> Perplexity:
    """Return the perplexity of documents of token ids, of at most about ``limit`` tokens."""
    begun = time.perf_counter()
    loss_sum = 0.0
    count = 0
    for ids in documents:
        if limit is not None and count >= limit:
            break
        logits = llm.logits(ids[:-1])  # (L, V)
        targets = mx.array(list(ids[1:]))[:, None]  # (L, 1)
        # -log softmax(logits)[target] = logsumexp(logits) - logits[target]
        target_logits = mx.take_along_axis(logits, targets, axis=-1)[:, 0]
        losses = mx.logsumexp(logits, axis=-1) - target_logits
        loss_sum += float(mx.sum(losses).item())  # type: ignore[arg-type]
        count += len(ids) - 1
    return Perplexity(math.exp(loss_sum / count), count, time.perf_counter() - begun)


def tokenize_documents(llm: LLM, text: str, *, separator: str, window: int) -> Iterator[list[int]]:
    """Yield the first ``window`` token ids of each document in a text."""
    for document in text.split(separator):
        ids = llm.tokenizer.encode(document.strip())[:window]
        if document.strip() and len(ids) > 1:
            yield ids


def main() -> None:
    """Print the perplexity of each model and kind of KV cache, and how far it is from the first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--separator", default="<|endoftext|>")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--activations", default="auto")
    parser.add_argument("--kv-bits", type=int, nargs="*", default=[None])
    parser.add_argument(
        "--record",
        action="store_true",
        help="record in a model that edgellm made what 8 bits cost it instead of 16",
    )
    options = parser.parse_args()
    if options.record and not {16, 8} <= set(options.kv_bits):
        parser.error("--record compares --kv-bits 16 8")
    text = options.file.read_text()
    first = None
    found: dict[tuple[str, int | None], Perplexity] = {}
    for model, kv_bits in product(options.models, options.kv_bits):
        with load(model, activations=options.activations, kv_bits=kv_bits) as llm:
            documents = tokenize_documents(
                llm, text, separator=options.separator, window=options.window
            )
            result = measure(llm, documents, limit=options.limit)
        found[model, kv_bits] = result
        first = first or result.perplexity
        change = 100 * (result.perplexity / first - 1)
        title = model
        if kv_bits:
            title += f", KV cache in {kv_bits} bits"
        sys.stdout.write(
            f"{title}: perplexity {result.perplexity:.4f} over {result.tokens} tokens "
            f"({change:+.3f}%), {result.seconds:.1f} s\n"
        )
    if options.record:
        for model in options.models:
            usual, fewer = found[model, 16], found[model, 8]
            loss = fewer.perplexity / usual.perplexity - 1
            record_kv_loss(locate(model), loss, tokens=fewer.tokens)


if __name__ == "__main__":
    main()
