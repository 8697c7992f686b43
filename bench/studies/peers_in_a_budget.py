"""edgellm beside its peers where memory is short: the same shapes, the same bytes, the same cap, in turns.

    python -m edgellm.bench.studies.peers_in_a_budget FOLDER [--rounds N] [--cap SIZE] [--only
    NAME,...] [--json]

FOLDER is where the random models are made (about 13 GB, once; they stay for the next time). Each
run is a process of its own that the system holds to 1.5 GB, page cache included; that takes Linux,
and the right to make control groups. A peer that is not installed, or that fails, says so in its
line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgellm.bench.backends.gguf_file import write_gguf
from edgellm.bench.machine.disk import drop_from_cache
from edgellm.bench.machine.environment import environment
from edgellm.bench.records.record import Record
from edgellm.bench.records.text_tables import Column, as_json, as_table, megabytes, number
from edgellm.bench.worker.memory_cap import capped
from edgellm.converters.synthetic import synthesize
from edgellm.device import machine as device
from edgellm.settings import parse_size

CAP = "1.5GB"
BUDGET = "1.15GB"
"""What edgellm is told, so that the interpreter and its libraries fit under the cap too."""

PEER_BUDGET = "700MB"
"""What accelerate is told: weights alone; torch and its copies of what it computes with come on top."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Runtimes that decode the same shape: our own first, then what it is compared with, by folder or file."""

    name: str
    shape: str
    tokens: int
    runs: Mapping[str, tuple[str, str]]
    """Model and memory by runtime."""


CONTESTS = (
    Contest(
        "7B, 4 bits",
        "llama-2-7b",
        3,
        {"edgellm": ("llama-2-7b-4bit", BUDGET), "llama.cpp": ("llama-2-7b.gguf", CAP)},
    ),
    Contest(
        "1.1B, 16 bits",
        "tinyllama-1.1b",
        3,
        {
            "edgellm": ("tinyllama-1.1b-16bit", BUDGET),
            "accelerate": ("tinyllama-1.1b-16bit", PEER_BUDGET),
            "airllm": ("tinyllama-1.1b-16bit", CAP),
        },
    ),
    Contest(
        "1.1B, 4 bits beside accelerate's 16",
        "tinyllama-1.1b",
        3,
        {
            "edgellm": ("tinyllama-1.1b-4bit", BUDGET),
            "accelerate": ("tinyllama-1.1b-16bit", PEER_BUDGET),
        },
    ),
)


@dataclass(slots=True)
class _Found:
    """What the runs of one runtime have shown so far."""

    seconds: list[float] = field(default_factory=list)
    peak: int | None = None
    error: str | None = None


def compare(
    contest: Contest, folder: Path, *, rounds: int, cap: int, say: Callable[[str], None]
) -> list[Record]:
    """Run a contest in turns, so that a disk that wanders favours nobody; one record a runtime."""
    models = {name: _model(folder, name, contest.shape, say) for name, _ in contest.runs.values()}
    found = {runtime: _Found() for runtime in contest.runs}
    for turn in range(rounds):
        for runtime, (name, memory) in contest.runs.items():
            if found[runtime].error is None:
                say(f"{contest.name}, round {turn + 1} of {rounds}: {runtime}")
                _run(found[runtime], runtime, models[name], [str(contest.tokens), memory], cap)
    where = environment()
    return [
        Record(
            model=contest.runs[runtime][0],
            backend=runtime,
            device=device.chip_name(),
            test=contest.name,
            environment=where,
            tokens=1,
            seconds=tuple(result.seconds),
            memory_bytes=cap,
            peak_memory_bytes=result.peak,
            error=result.error,
        )
        for runtime, result in found.items()
    ]


def _run(found: _Found, runtime: str, model: Path, more: Sequence[str], cap: int) -> None:
    drop_from_cache([model] if model.is_file() else sorted(model.glob("*.safetensors")))
    command = [
        sys.executable,
        "-m",
        "edgellm.bench.studies.peer_runners",
        runtime,
        str(model),
        *more,
    ]
    with capped(command, cap) as capped_command:
        done = subprocess.run(
            capped_command, capture_output=True, text=True, check=False, errors="replace"
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        killed = done.returncode in {-9, 137}
        why = done.stderr.strip().splitlines()[-1:] or [f"it ended with code {done.returncode}"]
        found.error = "killed: it took more memory than the cap" if killed else why[0]
        return
    result: dict[str, Any] = json.loads(lines[-1])
    found.seconds += result["seconds"]
    found.peak = max(found.peak or 0, result["peak_memory_bytes"])


def _model(folder: Path, name: str, shape: str, say: Callable[[str], None]) -> Path:
    path = folder / name
    if path.exists():
        return path
    say(f"making {name}")
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".gguf"):
        partial = path.with_suffix(".partial")
        write_gguf(partial, shape, "Q4_0")
        partial.rename(path)
    else:
        synthesize(shape, path, bits=int(name.rpartition("-")[2].removesuffix("bit")))
    return path


def show(contests: Mapping[str, Sequence[Record]]) -> str:
    """A table a contest, with how many times faster we are."""
    parts = []
    for name, records in contests.items():
        ours = records[0].median_seconds
        columns: dict[str, Column] = {
            "runtime": ("backend", str),
            "s/token": ("seconds_per_token", number(2)),
            "edgellm is faster by": ("ratio", lambda value: f"{value:.1f} x"),
            "peak memory": ("peak_memory_bytes", megabytes),
        }
        rows = [
            record.as_dict()
            | {
                "seconds_per_token": record.median_seconds,
                "ratio": record.median_seconds / ours if record.median_seconds and ours else None,
            }
            for record in records
        ]
        parts.append(f"{name}\n{as_table(rows, columns)}")
    return "\n\n".join(parts)


def main() -> int:
    """Run the contests, and print their records."""
    parser = argparse.ArgumentParser(
        prog="python -m edgellm.bench.studies.peers_in_a_budget", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="where the random models are, or are to be made")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cap", default=CAP, help="what each process may take")
    parser.add_argument("--only", default="", help="contests by number: 1,3")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = (
        [CONTESTS[int(number) - 1] for number in options.only.split(",")]
        if options.only
        else list(CONTESTS)
    )

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    found = {
        contest.name: compare(
            contest, options.folder, rounds=options.rounds, cap=parse_size(options.cap), say=say
        )
        for contest in chosen
    }
    everything = [record for records in found.values() for record in records]
    sys.stdout.write((as_json(everything) if options.json else show(found)) + "\n")
    return 1 if any(record.error for record in everything) else 0


if __name__ == "__main__":
    sys.exit(main())
