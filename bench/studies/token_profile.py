"""Show where each millisecond of a decoded token goes, beside the rate of the memory.

    python -m edgellm.bench.studies.token_profile MODEL [--context 16] [--rounds 15]

The model has to run on the CPU kernels, whole in memory. A token's steps are recorded, then those
of each kind are done again alone; only products with weights read much. Figures are medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from edgellm.bench.machine.roofline import processor_rates
from edgellm.bench.tables.text_tables import Column, as_table, number
from edgellm.engine.scheduling.batched_forward import SequenceInput, forward
from edgellm.errors import BackendError
from edgellm.kernels.codegen.abi import FLOAT_MATVEC, INT8_MATVEC
from edgellm.kernels.codegen.weight_format import WeightFormat
from edgellm.kernels.kernel_engine import KernelEngine, step_array
from edgellm.llm import LLM
from edgellm.models.arithmetic import engine_for
from edgellm.open_llm import load
from edgellm.settings import LoadSettings

COLUMNS: Mapping[str, Column] = {
    "part": ("part", str),
    "steps": ("steps", number(0)),
    "ms": ("ms", number(2)),
    "MB": ("megabytes", number(0)),
    "GB/s": ("gbps", number(1)),
}


@dataclass(frozen=True, slots=True)
class Part:
    """Steps of one kind: how many a token has, their milliseconds, what weights they read."""

    part: str
    steps: int
    ms: float
    megabytes: float = 0.0

    @property
    def gbps(self) -> float:
        """Gigabytes of weights a second."""
        return self.megabytes / self.ms

    def row(self) -> dict[str, object]:
        """Return the part as a table's row; who reads no weights has no bytes and no rate."""
        row: dict[str, object] = {"part": self.part, "steps": self.steps, "ms": self.ms}
        if self.megabytes:
            row |= {"megabytes": self.megabytes, "gbps": self.gbps}
        return row


def weight_bytes(name: str, step: Sequence[int]) -> int:
    """Return the bytes of the weight that a step of a token reads; 0 where it has none."""
    kernel, _, arguments = name.removeprefix("edgellm_").partition("_matvec_")
    if not arguments:
        return 0
    *numbers, kind = arguments.split("_")
    bits, group = map(int, numbers or (0, 0))
    weight = WeightFormat(bits, group, kind)
    rows = step[FLOAT_MATVEC["out_features"]]
    columns = step[FLOAT_MATVEC["in_features"]]
    if kernel == "int8":
        columns = step[INT8_MATVEC["groups"]] * group
    scales_and_biases = 0
    if not weight.dense:
        scales_and_biases = 2 * columns // group * weight.item_bytes
    return rows * (columns * weight.weight_bits // 8 + scales_and_biases)


def milliseconds(rounds: int, one: Callable[[], object]) -> float:
    """Return the median time of a call, after one that does not count."""
    one()
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        one()
        taken.append(1000 * (time.perf_counter() - begun))
    return statistics.median(taken)


def profile(llm: LLM, engine: KernelEngine, *, context: int, rounds: int) -> list[Part]:
    """Return the parts of a token after ``context`` others; the last one is the whole token.

    Raises:
        BackendError: the model does not run on the kernels, or not whole in memory.
    """
    caches = llm.caches.make(capacity=context + 8, reserve=context + 8)
    chunk = llm.plan.prefill_chunk
    prompt = [3 + number % 100 for number in range(context)]
    forward(llm.model, [SequenceInput(prompt, caches, context)], prefill_chunk=chunk)

    def token() -> None:
        for cache in caches:
            cache.trim(context)
        logits, _ = forward(llm.model, [SequenceInput([5], caches)], prefill_chunk=chunk)
        assert logits is not None, "nobody stops it"
        mx.argmax(logits, axis=-1).item()

    whole = milliseconds(rounds, token)
    with engine.recording() as calls:
        token()
    if not calls or llm.model.layers.streams_weights:
        raise BackendError(
            "the model does not run on the CPU kernels, whole in memory",
            hint="give a model that edgellm plan shows all in memory",
        )
    steps = np.concatenate(calls)
    names = engine.code.names()

    def timed(part: str, chosen: Iterable[int], nbytes: int = 0) -> Part:
        rows = step_array(steps[list(chosen)].tolist())

        def again() -> None:
            with engine.lock:
                engine.run(rows, 1)

        return Part(part, len(rows), milliseconds(rounds, again), nbytes / 1e6)

    kinds: dict[str, list[int]] = defaultdict(list)
    products: list[int] = []
    nbytes = 0
    for place, step in enumerate(steps.tolist()):
        name = names[step[0]]
        own_bytes = weight_bytes(name, step)
        nbytes += own_bytes
        if own_bytes:
            products.append(place)
        else:
            kinds[name.removeprefix("edgellm_")].append(place)
    everything = timed("all steps", range(len(steps)))
    return [
        timed("products", products, nbytes),
        *(timed(kind, places) for kind, places in sorted(kinds.items())),
        everything,
        Part("outside the steps", 0, whole - everything.ms),
        Part("a token", len(steps), whole, nbytes / 1e6),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m edgellm.bench.studies.token_profile",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("model", help="a folder, a Hub id or a bundled name")
    parser.add_argument("--context", type=int, default=16, help="tokens before the one measured")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(arguments)
    engine = engine_for(LoadSettings())
    if engine is None:
        raise BackendError(
            "there are no CPU kernels here", hint="see what edgellm doctor says of this processor"
        )
    with load(options.model) as llm:
        parts = profile(llm, engine, context=options.context, rounds=options.rounds)
    rate = processor_rates(engine.threads).bytes_per_second / 1e9
    sys.stdout.write(as_table([part.row() for part in parts], COLUMNS) + "\n")
    share = parts[-1].gbps / rate
    sys.stdout.write(f"memory: {rate:.1f} GB/s with {engine.threads} threads; share {share:.2f}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
