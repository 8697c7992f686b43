"""Set edgellm on two machines beside llama.cpp's RPC and mlx-lm's tensor split.

    python -m edgellm.bench.studies.clusters.peers MODEL [--llama FOLDER] [--gguf FILE]
        [--delay 100us] [--rate 125MB] [--tokens 24] [--rounds 3] [--losses]
        [--programs edgellm,llama.cpp,mlx-lm]

Machines are network namespaces, joined by a link of a delay and a rate, with one thread each; that
takes root and Linux. FOLDER has llama-bench, llama-completion and ggml-rpc-server, built with
``-DGGML_RPC=ON``; without it llama.cpp is left out. FILE is the model for it; without it the model
is exported, once. Programs run in turns, and the fastest four tokens in a row of each count, since
whatever else the machine computes makes some slower and none faster. With ``--losses`` each program
on two machines generates a text, its second machine is killed, or stopped as if its cable were cut,
and the program is waited for.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgellm.bench.speed.variants import prepare_variant
from edgellm.bench.studies.clusters.__main__ import seconds_from
from edgellm.bench.studies.clusters.network import Link, Network, network
from edgellm.bench.studies.clusters.peers.contenders import Contender, llama_cpp, mlx_lm, ours
from edgellm.bench.tables.text_tables import Column, as_table, number
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.console.terminal import write_json, write_line
from edgellm.errors import BackendError
from edgellm.hub.resolve import locate
from edgellm.settings import parse_size

WAIT_SECONDS = 60.0
"""For a program whose second machine is gone; then it is ended."""

MEASURE_SECONDS = 600.0

GENERATES_SECONDS = 3.0
"""A program that prints has begun; so much later it is in the middle of a text."""

START_SECONDS = 120.0
"""In which a program has to print."""


@contextmanager
def second_machine(contender: Contender, places: Network) -> Iterator[int | None]:
    """Start what runs on the second machine, if anything does; yield its process's number."""
    if not contender.other:
        yield None
        return
    started = subprocess.Popen(
        places.inside(1, contender.other),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **contender.environments[1]},
    )
    assert started.stdin is not None, "it is a pipe"
    assert started.stdout is not None, "so is this"
    said: list[str] = []
    rest = threading.Thread(target=said.extend, args=(started.stdout,), daemon=True)
    try:
        started.stdin.write(contender.given)
        started.stdin.flush()
        if contender.ready is not None:
            for line in started.stdout:
                said.append(line)
                if contender.ready in line:
                    break
            else:
                raise BackendError(
                    f"{contender.program} did not start: {''.join(said)}",
                    hint="start its command by hand",
                )
        rest.start()  # what else it says must not fill the pipe
        if contender.port is not None:
            _wait_for(places, contender.port)
        yield started.pid
    finally:
        started.kill()
        started.wait()
        if rest.ident is not None:
            rest.join()
        started.stdin.close()
        started.stdout.close()


def _wait_for(places: Network, port: int) -> None:
    """Wait until the second machine listens. Raises BackendError."""
    call = f"import socket; socket.create_connection(('{places.address(1)}', {port}), 5)"
    ends = time.monotonic() + START_SECONDS
    while subprocess.run(
        places.inside(0, [sys.executable, "-c", call]), check=False, stderr=subprocess.DEVNULL
    ).returncode:
        if time.monotonic() > ends:
            raise BackendError(
                f"nobody listens on port {port}", hint="start the second machine by hand"
            )
        time.sleep(0.2)


def measured(contender: Contender, places: Network) -> float:
    """Return the seconds of a token. Raises BackendError where the program fails."""
    with second_machine(contender, places):
        done = subprocess.run(
            places.inside(0, contender.timed),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=MEASURE_SECONDS,
            env={**os.environ, **contender.environments[0]},
        )
    if done.returncode:
        raise BackendError(
            f"{contender.program}, {contender.way}: {done.stderr.strip()[-500:]}",
            hint="run its command by hand",
        )
    return contender.seconds(done.stdout)


LOSSES: Mapping[str, int] = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
"""The signal that the second machine gets."""


def after_a_loss(
    contender: Contender,
    places: Network,
    loss: str,
    *,
    generates: float = GENERATES_SECONDS,
    wait: float = WAIT_SECONDS,
) -> dict[str, Any]:
    """Take the second machine away in the middle of a text.

    Args:
        contender: the program, on two machines.
        places: those.
        loss: how, one of ``LOSSES``.
        generates: seconds from the first word until then.
        wait: seconds in which the program may end.

    Returns:
        ``ended``: the seconds until the program ended, and ``code``; ``ended`` is None where it
        was ended by us.
    """
    with second_machine(contender, places) as other:
        assert other is not None, "there are two"
        started = subprocess.Popen(
            places.inside(0, contender.endless),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **contender.environments[0]},
        )
        assert started.stdout is not None, "it is a pipe"
        late = threading.Timer(START_SECONDS, started.kill)
        late.start()
        try:
            first = started.stdout.read(1)
            late.cancel()
            if not first:
                raise BackendError(
                    f"{contender.program}, {contender.way}: it printed nothing",
                    hint="run its command by hand",
                )
            reader = threading.Thread(target=started.stdout.read, daemon=True)
            reader.start()
            time.sleep(generates)
            if started.poll() is not None:
                raise BackendError(
                    f"{contender.program}, {contender.way}: its text was too short",
                    hint="take a slower model",
                )
            os.kill(other, LOSSES[loss])
            begun = time.perf_counter()
            try:
                code: int | None = started.wait(wait)
                ended: float | None = time.perf_counter() - begun
            except subprocess.TimeoutExpired:
                code = ended = None
        finally:
            late.cancel()
            started.kill()
            started.wait()
        reader.join()
        started.stdout.close()
    return {"ended": ended, "code": code}


def rows_of(
    contenders: Sequence[Contender],
    seconds: Mapping[int, Sequence[float]],
    losses: Mapping[tuple[int, str], Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return a line per program and way, with its ratio to the same program on one machine."""
    rows: list[dict[str, Any]] = []
    alone: dict[str, float] = {}
    for place, contender in enumerate(contenders):
        row: dict[str, Any] = {"program": contender.program, "way": contender.way}
        if seconds.get(place):
            row["seconds"] = min(seconds[place])
            row["rate"] = 1 / row["seconds"]
            if not contender.other:
                alone[contender.program] = row["rate"]
            elif contender.program in alone:
                row["ratio"] = row["rate"] / alone[contender.program]
        for loss in LOSSES:
            if found := losses.get((place, loss)):
                row[loss] = f"waits for {WAIT_SECONDS:.0f} s and more"
                if found["ended"] is not None:
                    row[loss] = f"{found['ended']:.1f} s, exit code {found['code']}"
        rows.append(row)
    return rows


PROGRAMS = ("edgellm", "llama.cpp", "mlx-lm")

COLUMNS: Mapping[str, Column] = {
    "program": ("program", str),
    "machines": ("way", str),
    "ms/token": ("seconds", lambda value: f"{1000 * value:.1f}"),
    "tokens/s": ("rate", number(2)),
    "two/one": ("ratio", number(2)),
    "second killed": ("killed", str),
    "second stopped": ("stopped", str),
}


def main() -> None:
    """Measure in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--llama", type=Path, help="the folder of llama.cpp's programs")
    parser.add_argument("--gguf", type=Path, help="the model for llama.cpp")
    parser.add_argument("--delay", type=seconds_from, default=1e-4)
    parser.add_argument("--rate", type=parse_size, default=125_000_000)
    parser.add_argument("--memory", type=parse_size, default=2_000_000_000)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--losses", action="store_true", help="kill and stop second machines, too")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    model = locate(asked.model)
    seconds: dict[int, list[float]] = {}
    losses: dict[tuple[int, str], dict[str, Any]] = {}
    with (
        network(2, Link(asked.delay, asked.rate)) as places,
        tempfile.TemporaryDirectory() as folder,
    ):
        contenders = ours(model, places, Path(folder), asked.memory, asked.tokens)
        if asked.llama is not None:
            gguf: Path | None = asked.gguf or prepare_variant(str(model), None, "llama.cpp").path
            assert gguf is not None, "it is exported"
            layers = len(read_checkpoint(model).layers)
            contenders += llama_cpp(asked.llama.absolute(), gguf, places, layers, asked.tokens)
        contenders += mlx_lm(model, places, Path(folder), asked.tokens)
        contenders = [one for one in contenders if one.program in asked.programs.split(",")]
        for turn in range(asked.rounds):
            for place, contender in enumerate(contenders):
                _say(f"round {turn + 1} of {asked.rounds}: {contender.program}, {contender.way}")
                seconds.setdefault(place, []).append(measured(contender, places))
        for place, contender in enumerate(contenders):
            for loss in LOSSES if asked.losses and contender.other else ():
                _say(f"second machine {loss}: {contender.program}, {contender.way}")
                losses[place, loss] = after_a_loss(contender, places, loss)
    rows = rows_of(contenders, seconds, losses)
    if asked.json:
        write_json({"rows": rows, "seconds": list(seconds.values())})
        return
    write_line(as_table(rows, COLUMNS))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
