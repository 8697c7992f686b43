"""How well a model expects a text: the perplexity of held-out documents.

    python -m edgellm.bench.evaluation.perplexity FILE MODEL [MODEL ...] [--separator TEXT] [--limit
    TOKENS] [--kv-bits 16 8 4]

Each document stands alone, after the model's first token; a longer one is cut at the window.
Perplexity is exp(mean negative log-likelihood a token), in float32 sums.
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

from edgellm.llm import LLM
from edgellm.open_llm import load


@dataclass(frozen=True, slots=True)
class Perplexity:
    """The result over ``tokens`` predicted tokens."""

    perplexity: float
    tokens: int
    seconds: float


def measure(
    llm: LLM, documents: Iterable[Sequence[int]], *, limit: int | None = None
) -> Perplexity:
    """Return the perplexity of documents of token ids, at most ``limit`` predicted tokens in all."""
    begun, total, count = time.perf_counter(), 0.0, 0
    for ids in documents:
        if limit is not None and count >= limit:
            break
        logits = llm.logits(ids[:-1])
        targets = mx.array(list(ids[1:]))
        losses = (
            mx.logsumexp(logits, axis=-1)
            - mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
        )
        total += float(mx.sum(losses).item())  # type: ignore[arg-type]
        count += len(ids) - 1
    return Perplexity(math.exp(total / count), count, time.perf_counter() - begun)


def documents_of(llm: LLM, text: str, *, separator: str, window: int) -> Iterator[list[int]]:
    """Token ids of the documents in a text."""
    for document in text.split(separator):
        if document.strip():
            ids = llm.tokenizer.encode(document.strip())[:window]
            if len(ids) > 1:
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
    arguments = parser.parse_args()
    first = None
    for name, kv_bits in product(arguments.models, arguments.kv_bits):
        with load(name, activations=arguments.activations, kv_bits=kv_bits) as llm:
            documents = documents_of(
                llm,
                arguments.file.read_text(),
                separator=arguments.separator,
                window=arguments.window,
            )
            result = measure(llm, documents, limit=arguments.limit)
        first = first or result.perplexity
        sys.stdout.write(
            f"{name}{f', KV cache in {kv_bits} bits' if kv_bits else ''}: perplexity {result.perplexity:.4f} over "
            f"{result.tokens} tokens ({100 * (result.perplexity / first - 1):+.3f}%), {result.seconds:.1f} s\n"
        )


if __name__ == "__main__":
    main()
