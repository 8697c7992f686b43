"""Measure what quantization changes on held-out documents: size, divergence, and perplexity.

    python -m edgellm.bench.evaluation.quality FILE REFERENCE MODEL [MODEL ...]
        [--separator TEXT] [--limit TOKENS] [--window TOKENS]

The reference and each model are a model folder, or a GGUF file that llama-cpp-python runs. Both
read the same token ids, those of the reference's tokenizer. Bits per weight count scales and
biases.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from edgellm.bench.evaluation.divergence import LogitComparison
from edgellm.bench.evaluation.perplexity import tokenize_documents
from edgellm.checkpoint.safetensors_file import read_header
from edgellm.open_llm import load

Logits = Callable[[Sequence[int]], npt.NDArray[np.float32]]


@contextmanager
def open_logits(model: str, window: int) -> Iterator[tuple[Logits, int]]:
    """Open a model; yield its logits (L, V) after given token ids, and its weights' bytes."""
    if not model.endswith(".gguf"):
        # rounded activations would hide what the weights alone change
        with load(model, activations="float", kv_bits=32) as llm:
            yield lambda ids: np.array(llm.logits(ids)), _stored(llm.path)[1]
        return
    import llama_cpp

    llama = llama_cpp.Llama(
        model, n_ctx=window, n_batch=window, n_ubatch=window, logits_all=True, verbose=False
    )

    def logits(ids: Sequence[int]) -> npt.NDArray[np.float32]:
        llama.reset()
        llama.eval(list(ids))
        return cast(npt.NDArray[np.float32], llama.scores[: len(ids)].copy())

    with closing(llama):
        yield logits, llama_cpp.llama_model_size(llama.model)


def main() -> None:
    """Print size, divergence, agreement and perplexity of each model beside the reference."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("reference")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--separator", default="<|endoftext|>")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--limit", type=int, default=20_000)
    options = parser.parse_args()
    with load(options.reference) as llm:
        documents = tokenize_documents(
            llm, options.file.read_text(), separator=options.separator, window=options.window
        )
        texts = _first_tokens(documents, options.limit)
        weights = _stored(llm.path)[0]
    say = sys.stdout.write
    say("| model | bits per weight | KL | same likeliest token | perplexity |\n")
    say("|---|---|---|---|---|\n")
    with open_logits(options.reference, options.window) as (reference, _):
        for model in [options.reference, *options.models]:
            with open_logits(model, options.window) as (logits, nbytes):
                sums = LogitComparison()
                for ids in texts:
                    sums.add(reference(ids), logits(ids), ids)
            fields = sums.as_fields()
            say(
                f"| {Path(model).name} | {8 * nbytes / weights:.2f} | {fields['kl']:.5f} "
                f"| {fields['top1_agreement']:.1%} | {fields['perplexity']:.3f} |\n"
            )
            sys.stdout.flush()


def _first_tokens(documents: Iterable[list[int]], limit: int) -> list[list[int]]:
    """Return the first documents that together have at least ``limit`` tokens."""
    texts, count = [], 0
    for ids in documents:
        if count >= limit:
            break
        texts.append(ids)
        count += len(ids)
    return texts


def _stored(folder: Path) -> tuple[int, int]:
    """Return a folder's numbers and their bytes; packed codes count as the words that they are."""
    numbers = nbytes = 0
    for file in folder.glob("*.safetensors"):
        for tensor in read_header(file)[0].values():
            numbers += math.prod(tensor.shape)
            nbytes += tensor.nbytes
    return numbers, nbytes


if __name__ == "__main__":
    main()
