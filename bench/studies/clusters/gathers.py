"""Measure what the gathers of rows take beside their trips, on two machines and a link.

    python -m edgellm.bench.studies.clusters.gathers MODEL [--delay 100us] [--rate 1.25GB]
        [--memory 1500MB] [--tokens 24] [--rounds 3] [--json]

Machines are network namespaces, each on a core of its own; the switch between them is on both. All
three have priority in real time, so that no other program computes there; memory they still share.
It needs Linux and root. A trip is measured first: 8 KB over bare sockets, one way, to a machine
that waits asleep. Then tokens on one machine and by rows on two, in turns, by the medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgellm.bench.studies.clusters.__main__ import seconds_from
from edgellm.bench.studies.clusters.member import join_words, joined
from edgellm.bench.studies.clusters.network import Link, Network, network
from edgellm.console.terminal import write_json, write_line
from edgellm.distributed.links.machines import secret_file
from edgellm.distributed.links.secret import new_secret, write_secret
from edgellm.errors import BackendError, ConfigError
from edgellm.hub.resolve import locate
from edgellm.settings import parse_size

PORT = 5555
TRIP_BYTES = 8192

SWITCH_PRIORITY, MACHINE_PRIORITY = 50, 10

TIMES = 1000
"""Messages of bare sockets."""

_STAMP = struct.Struct("!q")


def bare_trip(place: int, address: str, port: int) -> float:
    """Return the seconds of a message to this machine; the other one calls the same.

    Both are on this system, and have one clock: a message says when it was sent.
    """
    if place == 0:
        with socket.create_server((address, port)) as server:
            connection = server.accept()[0]
    else:
        connection = _called(address, port)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    own, other = bytearray(TRIP_BYTES), bytearray(TRIP_BYTES)
    seconds: list[float] = []
    with connection:
        for number in range(TIMES):
            if number % 2 == place:
                own[: _STAMP.size] = _STAMP.pack(time.monotonic_ns())
                connection.sendall(own)
            else:
                connection.recv_into(other, TRIP_BYTES, socket.MSG_WAITALL)
                came = time.monotonic_ns()
                seconds.append(1e-9 * (came - _STAMP.unpack_from(other)[0]))
    return statistics.median(seconds)


def _called(address: str, port: int) -> socket.socket:
    while True:
        try:
            return socket.create_connection((address, port))
        except OSError:
            time.sleep(0.05)


def alone(core: int, command: Sequence[str]) -> list[str]:
    """Return a command that runs another one on a core, before all others there."""
    return ["taskset", "-c", str(core), "chrt", "-f", str(MACHINE_PRIORITY), *command]


def _trip(places: Network) -> float:
    """Return the seconds of a message over bare sockets from a machine to the other."""
    words = [sys.executable, "-m", "edgellm.bench.studies.clusters.gathers", places.address(0)]
    started = [
        subprocess.Popen(
            places.inside(place, alone(place, [*words, "--bare", str(place)])),
            stdout=subprocess.PIPE,
            text=True,
        )
        for place in range(2)
    ]
    return statistics.mean(float(process.communicate()[0]) for process in started)


def _measured(places: Network, model: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Load the model on the first machine as settings say, and return what was measured."""
    words = [sys.executable, "-m", "edgellm.bench.studies.clusters.first", str(model)]
    command = places.inside(0, alone(0, [*words, json.dumps(settings)]))
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise BackendError(f"{settings['kind']} could not be measured", hint="see above")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def figures(
    trip: float, one: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Return the medians of all tokens, and communication in trips."""

    def median(rounds: Sequence[Mapping[str, Any]], name: str) -> float:
        return statistics.median([float(part[name]) for run in rounds for part in run["parts"]])

    def token(rounds: Sequence[Mapping[str, Any]]) -> float:
        return statistics.median([float(each) for run in rounds for each in run["seconds"]])

    trips = median(rows, "count") * trip
    gathers, kernels = median(rows, "gathers"), median(rows, "kernels")
    return {
        "trip": trip,
        "one": token(one),
        "rows": token(rows),
        "kernels": kernels,
        "count": median(rows, "count"),
        "gathers": gathers,
        "gathers in trips": gathers / trips,
        "all but kernels in trips": (token(rows) - kernels) / trips,
    }


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--delay", type=seconds_from, default=1e-4)
    parser.add_argument("--rate", type=parse_size, default=1_250_000_000)
    parser.add_argument("--memory", type=parse_size, default=1_500_000_000)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.bare is not None:  # one of the machines whose bare sockets are measured
        write_line(str(bare_trip(asked.bare, asked.model, PORT)))
        return
    if not shutil.which("chrt") or not shutil.which("taskset"):
        raise ConfigError(
            "cores and priorities are given by the programs taskset and chrt",
            hint="install util-linux",
        )
    model, secret = locate(asked.model), new_secret()
    settings = {"tokens": asked.tokens, "memory": asked.memory, "threads": 1}
    settings |= {"context": 256, "kv_bits": 16}
    one, rows = [], []
    with (
        network(2, Link(asked.delay, asked.rate), priority=SWITCH_PRIORITY) as places,
        tempfile.TemporaryDirectory() as folder,
    ):
        trip = _trip(places)
        hosts = Path(folder, "hosts.json")
        hosts.write_text(json.dumps([[places.address(place)] for place in range(2)]))
        write_secret(secret_file(hosts), secret)
        words = join_words(str(model), places.address(1), str(asked.memory))
        with joined(places.inside(1, alone(1, words)), secret):
            for _ in range(asked.rounds):
                one.append(_measured(places, model, settings | {"kind": "one"}))
                several = settings | {"kind": "rows", "machines": str(hosts)}
                rows.append(_measured(places, model, several))
    found = figures(trip, one, rows)
    if asked.json:
        write_json({"figures": found, "one": one, "rows": rows})
        return
    write_line(f"logits equal bit for bit: {len({run['logits'] for run in one + rows}) == 1}")
    write_line(f"a trip: {1e6 * found['trip']:.0f} us")
    write_line(f"a token on one machine: {1e3 * found['one']:.1f} ms")
    write_line(
        f"a token by rows: {1e3 * found['rows']:.1f} ms, kernels {1e3 * found['kernels']:.1f} ms, "
        f"{found['count']:.0f} gathers {1e3 * found['gathers']:.1f} ms"
    )
    write_line(
        f"in trips: gathers {found['gathers in trips']:.2f}, all but kernels "
        f"{found['all but kernels in trips']:.2f}"
    )


if __name__ == "__main__":
    main()
