"""Measure machines of different memories and disks, joined by links of a delay and a rate.

    python -m edgellm.bench.studies.clusters MODEL --machine 1GB:400MB --machine 1GB:400MB
        [--delay 1ms] [--rate 125MB] [--kinds one,halves,windows] [--tokens 5] [--rounds 3] [--json]

A machine is a process in a network namespace: of a memory budget, and behind the colon of a disk
that gives so many bytes per second (the real one, which a control group slows down). It needs root
and Linux. ``--delay`` and ``--rate`` are of each machine's link, in bytes per second.

Kinds are measured in turns: ``one`` machine alone (the first), ``halves`` (adjacent layers, paged),
``windows`` and ``rows``; the times are medians of all rounds. Beside them: the time that the disks
need for what is not in memory, all together; what the planner had forecast; by how much each
machine's memory was above its budget at its peak; and what idle machines compute.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.bench.studies.clusters.member import Process, join_words, joined
from edgellm.bench.studies.clusters.network import Link, Network, network
from edgellm.bench.studies.clusters.slow_disk import SlowDisk, slow_disk
from edgellm.bench.tables.text_tables import Column, as_table, number
from edgellm.console.terminal import write_json, write_line
from edgellm.distributed.links.machines import secret_file
from edgellm.distributed.links.secret import new_secret, write_secret
from edgellm.distributed.parts.digests import folder_digests
from edgellm.errors import ConfigError
from edgellm.hub.resolve import locate
from edgellm.reading.tuning import tuned
from edgellm.settings import parse_size

KINDS = ("one", "halves", "windows", "rows")
IDLE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of the study.

    Attributes:
        memory: bytes of its budget.
        disk: bytes per second of its disk; None: as it is.
    """

    memory: int
    disk: float | None


def machine_from(text: str) -> Machine:
    """Return a machine from ``MEMORY`` or ``MEMORY:RATE``."""
    memory, _, disk = text.partition(":")
    return Machine(parse_size(memory), parse_size(disk) if disk else None)


def seconds_from(text: str) -> float:
    """Return a time from ``1ms``, ``100us`` or seconds."""
    for unit, factor in (("ms", 1e-3), ("us", 1e-6), ("s", 1.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


@dataclass(frozen=True, slots=True)
class Study:
    """Machines that run, and what each measurement needs.

    Attributes:
        model: the folder.
        machines: the first one first.
        places: the namespaces.
        disks: of each machine.
        others: the processes of all but the first.
        hosts: the file that names them.
    """

    model: Path
    machines: Sequence[Machine]
    places: Network
    disks: Sequence[SlowDisk]
    others: Sequence[Process]
    hosts: Path

    def measure(self, kind: str, tokens: int) -> dict[str, Any]:
        """Load the model in one way, and return what was measured."""
        settings = {"kind": kind, "tokens": tokens, "memory": self.machines[0].memory}
        settings |= {"threads": 1, "context": 256, "kv_bits": 16}
        if kind != "one":
            settings["machines"] = str(self.hosts)
        words = [sys.executable, "-m", "edgellm.bench.studies.clusters.first", str(self.model)]
        words.append(json.dumps(settings))
        for other in self.others:
            other.forget_peak()
        command = self.disks[0].inside(self.places.inside(0, words))
        started = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert started.stdin is not None, "it is a pipe"
        assert started.stdout is not None, "so is this"
        try:
            line = started.stdout.readline()
            if not line:
                raise ConfigError(f"{kind} could not be measured", hint="see above")
            found: dict[str, Any] = json.loads(line)
            everyone = [Process(started.pid), *self.others]
            before = [process.processor_seconds() for process in everyone]
            time.sleep(IDLE_SECONDS)
            found["idle"] = [
                (process.processor_seconds() - begun) / IDLE_SECONDS
                for process, begun in zip(everyone, before, strict=True)
            ]
            found["peaks"] = [found["peak"], *(other.peak() for other in self.others)]
        finally:
            started.stdin.close()
            started.wait()
            started.stdout.close()
        return found


@contextmanager
def running(model: Path, machines: Sequence[Machine], link: Link) -> Iterator[Study]:
    """Start all machines but the first. Raises ConfigError, MachineError."""
    # what is remembered of files and disks is measured before these are slow
    tuned([*map(model.joinpath, folder_digests(model))])
    secret = new_secret()
    with ExitStack() as stack:
        places = stack.enter_context(network(len(machines), link))
        disks = [
            stack.enter_context(slow_disk(f"{places.prefix}d{number}", model, machine.disk))
            for number, machine in enumerate(machines)
        ]
        others = []
        for number, machine in enumerate(machines[1:], 1):
            words = join_words(str(model), places.address(number), str(machine.memory))
            command = disks[number].inside(places.inside(number, words))
            others.append(stack.enter_context(joined(command, secret)))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        hosts = Path(folder, "hosts.json")
        hosts.write_text(json.dumps([[places.address(place)] for place in range(len(machines))]))
        write_secret(secret_file(hosts), secret)
        yield Study(model, machines, places, disks, others, hosts)


def row_of(kind: str, found: Sequence[Mapping[str, Any]], machines: Sequence[Machine]) -> Row:
    """Return the figures of a kind, of all its rounds."""
    last = found[-1]
    seconds = statistics.median(second for one in found for second in one["seconds"])
    row: Row = {"kind": kind, "seconds": seconds, "logits": last["logits"]}
    forecast = last.get("forecast")
    parts = forecast["machines"] if forecast else [last["plan"]]
    rates = [machine.disk for machine in machines[: len(parts)]]
    if all(rates):
        missed = sum(part["streamed_bytes"] for part in parts)
        row["disks"] = missed / sum(rate for rate in rates if rate)
        row["share"] = row["disks"] / seconds
    if forecast and kind != "halves":
        row["forecast"] = forecast["seconds_per_token"]
        row["true"] = row["forecast"] / seconds
    row["layers"] = " ".join(
        f"{len(part['layers'])}:{part['pinned']}" if forecast else str(part["layers"])
        for part in parts
    )
    over = [
        max(one["peaks"][place] for one in found) - machine.memory
        for place, machine in enumerate(machines[: len(parts)])
    ]
    row["over"] = " ".join(f"{nbytes / 1e6:+.0f}" for nbytes in over)
    row["idle"] = max(max(one["idle"]) for one in found)
    return row


Row = dict[str, Any]

COLUMNS: Mapping[str, Column] = {
    "kind": ("kind", str),
    "layers": ("layers", str),
    "s/token": ("seconds", number(3)),
    "disks": ("disks", number(3)),
    "share": ("share", number(3)),
    "forecast": ("forecast", number(3)),
    "/ measured": ("true", number(2)),
    "MB over": ("over", str),
    "idle": ("idle", number(3)),
    "equal": ("equal", str),
}


def main() -> None:
    """Measure in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--machine", action="append", type=machine_from, required=True)
    parser.add_argument("--delay", type=seconds_from, default=0.0)
    parser.add_argument("--rate", type=parse_size, default=1_250_000_000)
    parser.add_argument("--kinds", default="one,halves,windows")
    parser.add_argument("--tokens", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    kinds = asked.kinds.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"no kind is called {unknown[0]}: {', '.join(KINDS)}")
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    link = Link(asked.delay, asked.rate)
    with running(Path(locate(asked.model)), asked.machine, link) as study:
        for _ in range(asked.rounds):
            for kind in kinds:
                found[kind].append(study.measure(kind, asked.tokens))
    if asked.json:
        write_json(found)
        return
    rows = [row_of(kind, found[kind], asked.machine) for kind in kinds]
    for row in rows:
        row["equal"] = "yes" if row["logits"] == rows[0]["logits"] else "no"
    write_line(as_table(rows, COLUMNS))


if __name__ == "__main__":
    main()
