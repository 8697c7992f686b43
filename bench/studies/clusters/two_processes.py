"""Measure what a second machine costs and gives, where it is a process on this one.

    python -m edgellm.bench.studies.clusters.two_processes MODEL [--memory 500MB] [--split rows]

The model runs in one process and in two, in turns, with one thread each, and the same memory each.
Reported are: whether the logits are equal bit for bit; the time of a token, the median of the
rounds; the time of a message to the other process and back; and what both compute while nobody
asks. On several cores two processes may be faster or slower than one: machines on a network are
neither of both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edgellm.console.terminal import write_line
from edgellm.distributed.links.machines import secret_file
from edgellm.distributed.links.secret import new_secret, write_secret
from edgellm.distributed.remote.cluster_layers import ClusterLayers
from edgellm.distributed.remote.row_layers import GatheredLayers
from edgellm.errors import MachineError
from edgellm.llm import LLM
from edgellm.open_llm import load

PROMPT = [1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9]

MESSAGES = (4096, 16_384, 262_144, 4_194_304)
"""Bytes: the hidden states of a token, of four, of a batch, of a prompt."""

IDLE_SECONDS = 3.0


@contextmanager
def other_process(model: str, memory: str) -> Iterator[tuple[Path, int]]:
    """Start a second machine on this one; yield the file that names it, and its process."""
    secret = new_secret()
    words = ["cluster", "join", model, "--port", "0", "--secret", "-", "--threads", "1"]
    started = subprocess.Popen(
        [sys.executable, "-m", "edgellm", *words, "--memory", memory],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdin is not None, "it is a pipe"
    assert started.stderr is not None, "so is this"
    try:
        with tempfile.TemporaryDirectory() as folder:
            started.stdin.write(f"{secret}\n")
            started.stdin.flush()
            address = _listens_at(started.stderr)
            hosts = Path(folder) / "hosts.json"
            hosts.write_text(json.dumps([["127.0.0.1"], [address]]))
            write_secret(secret_file(hosts), secret)
            yield hosts, started.pid
    finally:
        started.stdin.close()
        started.wait()
        started.stderr.close()


def _listens_at(lines: Iterable[str]) -> str:
    """Return the address that a starting machine names. Raises MachineError where it ends."""
    said = []
    for line in lines:
        if found := re.search(r"waiting at (\S+:\d+)", line):
            return found[1]
        said.append(line.strip())
    raise MachineError(
        f"the other process did not start: {' '.join(filter(None, said))}",
        hint="start it by hand to see more: edgellm cluster join MODEL",
    )


def token_seconds(llm: LLM, tokens: int) -> float:
    """Return the seconds of a token after the first one."""
    times = []
    for _ in llm.stream(PROMPT, max_tokens=tokens):
        times.append(time.perf_counter())
    return (times[-1] - times[0]) / (len(times) - 1)


def trip_seconds(llm: LLM, nbytes: int) -> float:
    """Return the seconds of a message of so many bytes to the other process and back."""
    layers = llm.model.layers
    assert isinstance(layers, ClusterLayers), "it was loaded on two"
    times = []
    for _ in range(50):
        begun = time.perf_counter()
        layers.peers[0].request({"ask": "echo"}, [memoryview(bytes(nbytes))])
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def gathered_seconds(llm: LLM, tokens: int) -> tuple[float, float]:
    """Return how many gathers a token has, and the seconds that they take."""
    layers = llm.model.layers
    assert isinstance(layers, GatheredLayers), "it was loaded by rows"
    mesh = layers.meet()
    passes, gathers, seconds = mesh.passes, mesh.gathers, mesh.seconds
    token_seconds(llm, tokens)
    passes = mesh.passes - passes
    return (mesh.gathers - gathers) / passes, (mesh.seconds - seconds) / passes


def processor_seconds(pid: int) -> float:
    """Return what a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--memory", default="500MB", help="of each process")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--split", default="windows", choices=("windows", "rows"))
    asked = parser.parse_args()
    settings = {"threads": 1, "context": len(PROMPT) + asked.tokens + 1, "speculate": "off"}
    with (
        other_process(asked.model, asked.memory) as (hosts, pid),
        load(asked.model, memory=asked.memory, **settings) as one,
        load(
            asked.model, memory=asked.memory, machines=hosts, split=asked.split, **settings
        ) as two,
    ):
        equal = np.array_equal(np.array(one.logits(PROMPT)), np.array(two.logits(PROMPT)))
        write_line(f"logits equal bit for bit: {equal}")
        write_line(f"one process:   {one.plan!r}\ntwo processes: {two.plan!r}")
        alone, together = [], []
        for _ in range(asked.rounds):
            alone.append(token_seconds(one, asked.tokens))
            together.append(token_seconds(two, asked.tokens))
        write_line(f"a token in one process: {1e3 * statistics.median(alone):.2f} ms")
        write_line(f"a token in two:         {1e3 * statistics.median(together):.2f} ms")
        if asked.split == "rows":
            gathers, seconds = gathered_seconds(two, asked.tokens)
            write_line(f"of it, {gathers:.0f} gathers: {1e3 * seconds:.2f} ms")
        for nbytes in MESSAGES:
            write_line(
                f"{nbytes:>9} bytes there and back: {1e6 * trip_seconds(two, nbytes):.0f} us"
            )
        before = processor_seconds(pid), time.process_time()
        time.sleep(IDLE_SECONDS)
        other = (processor_seconds(pid) - before[0]) / IDLE_SECONDS
        own = (time.process_time() - before[1]) / IDLE_SECONDS
        write_line(f"while nobody asks: {own:.3f} and {other:.3f} of a core")


if __name__ == "__main__":
    main()
