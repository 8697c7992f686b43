"""Set the CPU kernels beside llama.cpp and mlx-lm: one shape, the same threads, in turns.

    python -m edgellm.bench.studies.cpu_kernels --shape tinyllama-1.1b --bits 4 --threads 2

Weights are random. Every program is a process of its own that holds its model and waits; they work one after the other,
round after round, so that a machine that others use too slows all of them alike. Records go to
stdout as JSON, tables of medians to stderr. It needs llama-cpp-python and gguf; mlx-lm is there
anyway.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgellm.bench.backends.gguf_file import TYPES, read_bytes, write_gguf
from edgellm.bench.machine.environment import environment
from edgellm.bench.records.record import Record
from edgellm.bench.records.text_tables import Column, as_json, as_table, number
from edgellm.bench.studies.cpu_runners import Worker
from edgellm.errors import BackendError
from edgellm.models.presets import SHAPES

COLUMNS: Mapping[str, Column] = {
    "backend": ("backend", str),
    "test": ("test", str),
    "tokens/s": ("tokens_per_second", number(1)),
    "GB/s": ("achieved_gbps", number(1)),
}
OWN = "edgellm"


@contextmanager
def workers(
    files: Mapping[str, tuple[str, Path]], threads: int
) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    """Start a worker for each name (backend and file); also gives why some could not start."""
    running, failures = {}, {}
    try:
        for name, (backend, file) in files.items():
            try:
                running[name] = Worker(backend, file, threads)
            except BackendError as error:
                failures[name] = error.message
                # gcc 12 leaves out what sets its AMX tiles up; without them it runs
                if backend == "llama.cpp":
                    running[f"{name} plain"] = Worker("llama.cpp plain", file, threads)
        yield running, failures
    finally:
        for worker in running.values():
            worker.close()


def measure(options: argparse.Namespace, folder: Path) -> list[Record]:
    """Records of every program and test."""
    from edgellm.converters.synthetic import synthesize

    source = folder / "mlx"
    synthesize(options.shape, source, bits=options.bits)
    own = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    own -= (source / "model-embedding.safetensors").stat().st_size
    files, sizes = {OWN: ("edgellm", source)}, {OWN: own, "mlx-lm": own}
    if options.mlx_lm:
        files["mlx-lm"] = ("mlx-lm", source)
    for kind in TYPES[options.bits]:
        path = folder / f"{kind}.gguf"
        write_gguf(path, options.shape, kind)
        files[f"llama.cpp {kind}"] = ("llama.cpp", path)
        sizes |= dict.fromkeys(
            (f"llama.cpp {kind}", f"llama.cpp {kind} plain"), read_bytes(path, options.shape)
        )
    samples: dict[tuple[str, str, int], list[float]] = {}
    tests = [("tg", options.decode), *(("pp", int(count)) for count in options.prompts.split(","))]
    with workers(files, options.threads) as (running, failures):
        for _ in range(options.rounds):
            for test, tokens in tests:
                for name in list(running):
                    if name == "mlx-lm" and test == "pp":
                        continue  # minutes, and nobody's measure
                    count = 1 if name == "mlx-lm" else tokens
                    try:
                        samples.setdefault((name, test, count), []).append(
                            running[name].run(test, count)
                        )
                    except BackendError as error:
                        failures[name] = error.message
                        running.pop(name).close()
    where = environment()

    def record(name: str, test: str, **found: Any) -> Record:
        fields = {
            "backend": name,
            "test": test,
            "bits": options.bits,
            "threads": options.threads,
        } | found
        return Record(model=options.shape, device="cpu", environment=where, **fields)

    return [
        record(
            name,
            f"{test}{options.decode if test == 'tg' else count}",
            tokens=count,
            seconds=tuple(seconds),
            weight_bytes_per_token=sizes[name] if test == "tg" else None,
        )
        for (name, test, count), seconds in samples.items()
    ] + [record(name, "all", error=error) for name, error in failures.items()]


def comparison(records: Sequence[Record]) -> str:
    """A line a test and peer: how many times the peer's speed ours is, the median of what each round says."""
    lines = []
    mine = {record.test: record for record in records if record.backend == OWN}
    for peer in records:
        own = mine.get(peer.test)
        if own is None or peer.backend == OWN or not peer.seconds:
            continue
        pairs = zip(own.seconds, peer.seconds, strict=False)
        ratio = statistics.median(
            theirs / peer.tokens / (ours / own.tokens) for ours, theirs in pairs
        )
        lines.append(f"{peer.test}: {ratio:.2f} times {peer.backend}")
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
        "--folder", type=Path, help="where the models are made; left out: a temporary folder"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        records = measure(options, Path(folder))
    sys.stderr.write(f"{as_table(records, COLUMNS)}\n\n{comparison(records)}\n")
    sys.stdout.write(as_json(records) + "\n")
    return 1 if any(record.error for record in records) else 0


if __name__ == "__main__":
    raise SystemExit(main())
