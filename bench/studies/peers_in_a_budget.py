"""Set edgellm beside its peers where memory is short: the same shapes and cap, in turns.

    python -m edgellm.bench.studies.peers_in_a_budget FOLDER
        [--rounds N] [--cap SIZE] [--only NUMBER,...] [--json]

FOLDER is where the random models are made (about 13 GB, once; they stay for the next time). Each
run is a process of its own that the system holds to 1.5 GB, page cache included; that takes Linux,
and the right to make control groups. A peer that is not installed is left out, which is said; one
that fails says so in its line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgellm.bench.backends.gguf_file import write_gguf
from edgellm.bench.machine.disk import drop_from_cache
from edgellm.bench.machine.environment import environment
from edgellm.bench.records.record import Record, quotient
from edgellm.bench.tables.text_tables import Column, as_json, as_table, megabytes, number
from edgellm.bench.worker.memory_cap import capped
from edgellm.converters.synthetic import synthesize
from edgellm.device import machine as device
from edgellm.settings import parse_size

CAP = "1.5GB"
BUDGET = "1.15GB"
"""Of edgellm, so that the interpreter and its libraries fit under the cap too."""

PEER_BUDGET = "700MB"
"""Of accelerate, for weights alone; torch and its copies of what it computes with come on top."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Runtimes that decode the same shape.

    Attributes:
        name: in words.
        shape: the shape of the model, one of ``presets.SHAPES``.
        tokens: tokens of a run.
        runs: by runtime, the name of its model's file or folder, and the memory that it is told;
            our own first.
    """

    name: str
    shape: str
    tokens: int
    runs: Mapping[str, tuple[str, str]]


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


PACKAGES: Mapping[str, Sequence[str]] = {
    "llama.cpp": ("llama_cpp",),
    "accelerate": ("torch", "transformers", "accelerate"),
    "airllm": ("torch", "airllm"),
}
"""What Python must be able to import for each peer."""


def missing_packages(runtime: str) -> list[str]:
    """Return the packages of a peer that are not installed."""
    return [name for name in PACKAGES.get(runtime, ()) if find_spec(name) is None]


def with_installed(contest: Contest) -> Contest:
    """Return a contest of the runtimes that can run here."""
    runs = {name: run for name, run in contest.runs.items() if not missing_packages(name)}
    return replace(contest, runs=runs)


@dataclass(slots=True)
class _Result:
    """The runs of one runtime so far: seconds of tokens, the most memory held, or a failure."""

    seconds: list[float] = field(default_factory=list)
    peak: int | None = None
    error: str | None = None


def compare(
    contest: Contest, folder: Path, *, rounds: int, cap: int, say: Callable[[str], None]
) -> list[Record]:
    """Run a contest in turns, so that a disk that wanders favours nobody; one record a runtime."""
    models = {name: _model(folder, name, contest.shape, say) for name, _ in contest.runs.values()}
    results = {runtime: _Result() for runtime in contest.runs}
    for turn in range(1, rounds + 1):
        for runtime, (name, memory) in contest.runs.items():
            if results[runtime].error is None:
                say(f"{contest.name}, round {turn} of {rounds}: {runtime}")
                arguments = [runtime, str(models[name]), str(contest.tokens), memory]
                _run(results[runtime], models[name], arguments, cap)
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
        for runtime, result in results.items()
    ]


def _run(result: _Result, model: Path, arguments: Sequence[str], cap: int) -> None:
    """Run a peer once, and add what it shows to the result."""
    files = sorted(model.glob("*.safetensors")) or [model]
    drop_from_cache(files)
    command = [sys.executable, "-m", "edgellm.bench.studies.peer_runners", *arguments]
    with capped(command, cap) as capped_command:
        done = subprocess.run(
            capped_command, capture_output=True, text=True, check=False, errors="replace"
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        result.error = _failure(done)
        return
    figures: dict[str, Any] = json.loads(lines[-1])
    result.seconds += figures["seconds"]
    result.peak = max(result.peak or 0, figures["peak_memory_bytes"])


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    # a shell reports a child that signal 9 ended as 137
    if done.returncode in {-9, 137}:
        return "killed: it took more memory than the cap"
    last_words = done.stderr.strip().splitlines()[-1:]
    return "".join(last_words) or f"it ended with code {done.returncode}"


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
    """Return a table a contest, with how many times faster we are."""
    columns: dict[str, Column] = {
        "runtime": ("backend", str),
        "s/token": ("seconds_per_token", number(2)),
        "edgellm is faster by": ("ratio", "{:.1f} x".format),
        "peak memory": ("peak_memory_bytes", megabytes),
    }
    parts = []
    for name, records in contests.items():
        ours = records[0].median_seconds
        rows = [
            record.as_dict()
            | {
                "seconds_per_token": record.seconds_per_token,
                "ratio": quotient(record.median_seconds, ours),
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
    chosen = list(CONTESTS)
    if options.only:
        chosen = [CONTESTS[int(number) - 1] for number in options.only.split(",")]

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    for peer in PACKAGES:
        if missing := missing_packages(peer):
            say(f"not measured: {peer} needs packages that are not installed: {', '.join(missing)}")
    cap = parse_size(options.cap)
    contests = {
        contest.name: compare(
            with_installed(contest), options.folder, rounds=options.rounds, cap=cap, say=say
        )
        for contest in chosen
    }
    records = [record for of_contest in contests.values() for record in of_contest]
    text = show(contests)
    if options.json:
        text = as_json(records)
    sys.stdout.write(f"{text}\n")
    return int(any(record.error for record in records))


if __name__ == "__main__":
    sys.exit(main())
