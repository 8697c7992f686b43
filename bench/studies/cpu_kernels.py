"""Set the CPU kernels beside llama.cpp and mlx-lm: one shape, the same threads, in turns.

    python -m edgellm.bench.studies.cpu_kernels --shape tinyllama-1.1b --bits 4 --threads 2

Weights are random. Every program is a process of its own that holds its model and waits; they work
one after the other, round after round, so that a machine that others use too slows all of them
alike. Records go to stdout as JSON, tables of medians to stderr. Without llama-cpp-python it
measures edgellm beside mlx-lm alone, and says so.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from edgellm.bench.backends.gguf_file import TYPES, read_bytes, write_gguf
from edgellm.bench.backends.registry import backend_named, not_measured
from edgellm.bench.machine.environment import environment
from edgellm.bench.records.backend_names import OWN
from edgellm.bench.records.record import Record
from edgellm.bench.studies.cpu_runners import Runner
from edgellm.bench.tables.text_tables import Column, as_json, as_table, number
from edgellm.errors import BackendError
from edgellm.models.presets import SHAPES

COLUMNS: Mapping[str, Column] = {
    "backend": ("backend", str),
    "test": ("test", str),
    "tokens/s": ("tokens_per_second", number(1)),
    "GB/s": ("achieved_gbps", number(1)),
}
MLX_LM = "mlx-lm"
LLAMA_CPP = "llama.cpp"

Samples = dict[tuple[str, str, int], list[float]]
"""Seconds by program, test and tokens."""


@dataclass(frozen=True, slots=True)
class Program:
    """A backend, and the file or folder that it opens.

    Attributes:
        backend: a name in the table of backends.
        file: its model.
        weight_bytes: bytes of the weights that one decoded token goes through.
    """

    backend: str
    file: Path
    weight_bytes: int


def make_programs(options: argparse.Namespace, folder: Path) -> dict[str, Program]:
    """Make the model for each program, and return them by name."""
    from edgellm.converters.synthetic import synthesize

    source = folder / "safetensors"
    synthesize(options.shape, source, bits=options.bits)
    # a token reads one row of the embedding
    weight_bytes = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    weight_bytes -= (source / "model-embedding.safetensors").stat().st_size
    programs = {OWN: Program(OWN, source, weight_bytes)}
    if options.mlx_lm:
        programs[MLX_LM] = Program("mlx-lm", source, weight_bytes)
    if not backend_named(LLAMA_CPP).installed:
        return programs
    for kind in TYPES[options.bits]:
        path = folder / f"{kind}.gguf"
        write_gguf(path, options.shape, kind)
        weight_bytes = read_bytes(path, options.shape)
        programs[f"llama.cpp {kind}"] = Program(LLAMA_CPP, path, weight_bytes)
    return programs


@contextmanager
def start_runners(
    programs: dict[str, Program], threads: int
) -> Iterator[tuple[dict[str, Runner], dict[str, str]]]:
    """Give a runner for each program, and why some could not start.

    Where llama.cpp fails, a program without its extra buffers is added to ``programs``.
    """
    runners: dict[str, Runner] = {}
    failures: dict[str, str] = {}
    try:
        waiting = list(programs)
        while waiting:
            name = waiting.pop(0)
            program = programs[name]
            try:
                runners[name] = Runner(program.backend, program.file, threads)
            except BackendError as error:
                failures[name] = error.message
                # gcc 12 leaves out what sets its AMX tiles up; without them it runs
                if program.backend == LLAMA_CPP:
                    programs[f"{name} plain"] = replace(program, backend="llama.cpp-plain")
                    waiting.append(f"{name} plain")
        yield runners, failures
    finally:
        for runner in runners.values():
            runner.close()


def measure(options: argparse.Namespace, folder: Path) -> list[Record]:
    """Return records of every program and test."""
    programs = make_programs(options, folder)
    tests = [("tg", options.decode), *(("pp", int(count)) for count in options.prompts.split(","))]
    with start_runners(programs, options.threads) as (runners, failures):
        samples = take_turns(runners, failures, tests, rounds=options.rounds)
    common = {
        "model": options.shape,
        "device": "cpu",
        "environment": environment(),
        "bits": options.bits,
        "threads": options.threads,
    }
    records = []
    for (name, test, tokens), seconds in samples.items():
        fields: dict[str, Any] = {"test": f"{test}{tokens}"}
        if test == "tg":
            # mlx-lm's single token is shown beside the others' tests
            fields["test"] = f"tg{options.decode}"
            fields["weight_bytes_per_token"] = programs[name].weight_bytes
        fields |= {"tokens": tokens, "seconds": tuple(seconds)}
        records.append(Record(backend=name, **common, **fields))
    for name, error in failures.items():
        records.append(Record(backend=name, test="all", error=error, **common))
    return records


def take_turns(
    runners: dict[str, Runner],
    failures: dict[str, str],
    tests: Sequence[tuple[str, int]],
    *,
    rounds: int,
) -> Samples:
    """Run every test with every program, round after round, until a program fails."""
    samples: Samples = defaultdict(list)
    for _, (test, tokens), name in product(range(rounds), tests, list(runners)):
        if name not in runners:
            continue
        count = tokens
        if name == MLX_LM:
            if test == "pp":
                continue  # minutes, and nobody's measure
            count = 1
        try:
            samples[name, test, count].append(runners[name].run(test, count))
        except BackendError as error:
            failures[name] = error.message
            runners.pop(name).close()
    return samples


def comparison(records: Sequence[Record]) -> str:
    """Return a line per test and peer: how many times the peer's speed ours is.

    That is the median of what each round says.
    """
    own_records = {record.test: record for record in records if record.backend == OWN}
    lines = []
    for peer in records:
        own = own_records.get(peer.test)
        if own is None or peer.backend == OWN or not peer.seconds:
            continue
        ratios = [
            (theirs / peer.tokens) / (ours / own.tokens)
            for ours, theirs in zip(own.seconds, peer.seconds, strict=False)
        ]
        lines.append(f"{peer.test}: {statistics.median(ratios):.2f} times {peer.backend}")
    return "\n".join(sorted(lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m edgellm.bench.studies.cpu_kernels",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tinyllama-1.1b", metavar="NAME")
    parser.add_argument("--bits", type=int, choices=sorted(TYPES), default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--rounds", type=int, default=7, help="times that each program takes its turn"
    )
    parser.add_argument("--decode", type=int, default=16, help="tokens of one turn's decoding")
    parser.add_argument("--prompts", default="128,512", help="lengths of prompts")
    parser.add_argument("--no-mlx-lm", dest="mlx_lm", action="store_false")
    parser.add_argument(
        "--folder", type=Path, help="where the models are made; default: a temporary folder"
    )
    options = parser.parse_args(arguments)
    if not backend_named(LLAMA_CPP).installed:
        sys.stderr.write(f"{not_measured(LLAMA_CPP)}\n")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        records = measure(options, Path(folder))
    sys.stderr.write(f"{as_table(records, COLUMNS)}\n\n{comparison(records)}\n")
    sys.stdout.write(as_json(records) + "\n")
    return int(any(record.error for record in records))


if __name__ == "__main__":
    raise SystemExit(main())
