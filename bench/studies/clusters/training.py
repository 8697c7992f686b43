"""Measure training on two machines, where the second is a process on this one.

    python -m edgellm.bench.studies.clusters.training MODEL [--memory SIZE]
        [--kinds lora,dora,dpo,full] [--batch 8] [--tokens 128] [--steps 6] [--rounds 3] [--on q,v]
        [--rank 16] [--activations float]

Each round runs the steps alone and with the other machine, in turns, one thread a process. Reported
are, of each kind: by how much losses and derivatives differ from those of one machine, from the
same numbers; seconds per step without the first ones, of each step the median and the fastest of
all rounds, and their ratio; bytes that a step sends and receives; and each process' peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from edgellm.bench.studies.clusters.member import Process
from edgellm.bench.studies.clusters.two_processes import other_process
from edgellm.console.terminal import write_line
from edgellm.console.units import size
from edgellm.settings import LoadSettings
from edgellm.training.low_rank import Change, LoraSettings, count_numbers, targets_named
from edgellm.training.run.order import step_items
from edgellm.training.run.settings import TrainSettings
from edgellm.training.run.train import TrainRequest, open_run
from edgellm.training.together.shares import FIRST_STEPS

KINDS = ("lora", "dora", "dpo")
"""``full`` is another one, for small models that are not quantized."""

WORDS = ("the", "a", "cat", "dog", "ball", "sun", "sea", "moon", "said", "went", "saw", "and")


def write_records(path: Path, kind: str, *, count: int, words: int) -> None:
    """Write records of words that are drawn, of different lengths."""
    draws = random.Random(0)

    def text(most: int) -> str:
        return " ".join(draws.choices(WORDS, k=draws.randint((most + 1) // 2, most)))

    answers = ("chosen", "rejected") if kind == "dpo" else ("completion",)
    rows = [
        {"prompt": text(words // 8 + 1), **{name: text(words // 2) for name in answers}}
        for _ in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Case:
    """A kind of training, alone and with the other machine.

    Args:
        asked: the options.
        kind: one of ``KINDS``, or ``full``.
        place: a folder for its files.
        hosts: names the machines.
    """

    def __init__(self, asked: argparse.Namespace, kind: str, place: Path, hosts: Path) -> None:
        self._asked, self._kind, self._place, self._hosts = asked, kind, place, hosts
        self._data = place / f"{kind}.jsonl"
        write_records(self._data, kind, count=asked.batch * 2, words=asked.tokens)

    def request(self, *, machines: bool) -> TrainRequest:
        """Return a run of this kind; nothing is dropped out."""
        asked = self._asked
        return TrainRequest(
            model=asked.model,
            data=self._data,
            folder=self._place / f"derivatives-{self._kind}-{machines}",
            settings=TrainSettings(
                stage="dpo" if self._kind == "dpo" else "sft",
                method="full" if self._kind == "full" else "lora",
                lora=LoraSettings(
                    rank=asked.rank,
                    targets=targets_named(asked.on),
                    dropout=0.0,
                    dora=self._kind == "dora",
                ),
                batch=asked.batch,
                steps=asked.steps,
            ),
            load=LoadSettings(
                memory=asked.memory,
                threads=1,
                activations=asked.activations,
                machines=self._hosts if machines else None,
            ),
            max_tokens=asked.tokens,
            template="plain",
        )

    def derivatives(self, *, machines: bool) -> tuple[float, list[Change], str]:
        """Return loss and derivatives of a step, and the memory in words; no number is 0."""
        with open_run(self.request(machines=machines)) as run:
            trainer = run.trainer
            items = step_items(trainer._items, 0, batch=self._asked.batch, seed=0)
            mx.random.seed(1)
            numbers = [
                {name: array + 0.02 * mx.random.normal(array.shape) for name, array in own.items()}
                for own in trainer.numbers
            ]
            found = run._learner.gradients(items, numbers, 0)
            return found.loss, found.by_changes, run.memory.in_words()

    def run(self, number: int, *, machines: bool) -> tuple[list[float], int]:
        """Take the steps in a process of their own; return their seconds, and its peak."""
        asked = self._asked
        out = self._place / f"{self._kind}-{number}-{machines}"
        words = [sys.executable, "-m", "edgellm", "train", asked.model, str(self._data), str(out)]
        words += ["--threads", "1", "--answers", "0", "--batch", str(asked.batch)]
        words += ["--steps", str(asked.steps), "--max-tokens", str(asked.tokens)]
        if self._kind == "full":
            words += ["--full"]
        else:
            words += ["--rank", str(asked.rank), "--on", asked.on, "--dropout", "0"]
        words += {"dora": ["--dora"], "dpo": ["--stage", "dpo"]}.get(self._kind, [])
        words += ["--memory", asked.memory, "--template", "plain"]
        words += ["--activations", asked.activations]
        if machines:
            words += ["--machines", str(self._hosts)]
        with open(self._place / "said", "wb") as said:
            started = subprocess.Popen(words, stdout=said, stderr=said)
            _, status, usage = os.wait4(started.pid, 0)
            started.returncode = os.waitstatus_to_exitcode(status)
        if started.returncode:
            raise SystemExit((self._place / "said").read_text())
        lines = (out / "training.jsonl").read_text().splitlines()
        seconds = [json.loads(line)["seconds"] for line in lines]
        return seconds[FIRST_STEPS:], usage.ru_maxrss << 10


def furthest(one: Sequence[Change], two: Sequence[Change]) -> float:
    """Return the largest difference of derivatives, as a share of the largest one."""
    pairs = [
        (np.array(own[name]), np.array(other[name]))
        for own, other in zip(one, two, strict=True)
        for name in own
    ]
    apart = max(float(np.abs(a - b).max()) for a, b in pairs)
    return apart / max(float(np.abs(a).max()) for a, _ in pairs)


def report(case: Case, kind: str, rounds: int, other: Process) -> None:
    """Measure a kind, and print its figures."""
    alone_loss, alone, memory = case.derivatives(machines=False)
    loss, found, _ = case.derivatives(machines=True)
    numbers = count_numbers(alone)
    write_line(f"{kind}: {memory}")
    write_line(f"  loss {alone_loss:.6f}, differs by {abs(loss - alone_loss):.1e}")
    write_line(f"  derivatives differ by {furthest(alone, found):.1e} of the largest")
    write_line(
        f"  {numbers:,} numbers: {size(4 * numbers)} there and {size(4 * numbers)} back a step"
    )
    times: dict[bool, list[list[float]]] = {False: [], True: []}
    peaks = {False: 0, True: 0}
    other.forget_peak()
    for number in range(rounds):
        for machines, of_rounds in times.items():
            seconds, peak = case.run(number, machines=machines)
            of_rounds.append(seconds)
            peaks[machines] = max(peaks[machines], peak)
    if not rounds:
        return
    for words, middle in (("median", statistics.median), ("fastest", min)):
        # step by step: each has other records
        one, two = (
            statistics.mean(middle(each) for each in zip(*times[machines], strict=True))
            for machines in (False, True)
        )
        said = f"{one:.2f} s a step alone, {two:.2f} s with two: {one / two:.2f} times as fast"
        write_line(f"  {said} ({words} of {rounds} rounds)")
    write_line(
        f"  peaks: {size(peaks[False])} alone; with two {size(peaks[True])}, "
        f"and {size(other.peak())} on the other"
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--memory", default="2GB", help="of each process")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="of a record, at most")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--on", default="q,v")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--activations", default="float", choices=("auto", "int8", "float"))
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        other_process(asked.model, asked.memory) as (hosts, pid),
    ):
        for kind in asked.kinds.split(","):
            report(Case(asked, kind, Path(folder), hosts), kind, asked.rounds, Process(pid))


if __name__ == "__main__":
    main()
