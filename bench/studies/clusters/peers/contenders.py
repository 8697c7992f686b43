"""Programs that generate on one machine and on two, as commands, each in its own words."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgellm.bench.studies.clusters.member import join_words
from edgellm.bench.studies.clusters.network import Network
from edgellm.distributed.links.machines import secret_file
from edgellm.distributed.links.secret import new_secret, write_secret

RPC_PORT, RING_PORT = 50052, 5000

ENDLESS = 100_000
"""Tokens of a text that does not end by itself; contexts end it where they are shorter."""

CONTEXT = 2048

SAMPLE = 4
"""Tokens in a row that are timed together; the fastest of them counts."""

MLX_PART = 8
"""mlx-lm generates so many times fewer tokens: on a processor each takes seconds."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A program, on one machine or two.

    Attributes:
        program: the name of the program.
        way: how it is divided; ``one``: not at all.
        timed: the command on the first machine that times tokens.
        seconds: returns the seconds of a token, in the fastest sample, from what that prints.
        endless: the command on the first machine that generates for as long as it may; it prints
            as tokens come.
        other: the command on the second machine.
        ready: words that the second machine prints once it waits; None where it prints none.
        port: that the second machine listens on once it waits; None where nobody calls it.
        given: standard input of the second machine.
        environments: variables of both machines' commands, the first one's first.
    """

    program: str
    way: str
    timed: Sequence[str]
    seconds: Callable[[str], float]
    endless: Sequence[str] = ()
    other: Sequence[str] = ()
    ready: str | None = None
    port: int | None = None
    given: str = ""
    environments: Sequence[Mapping[str, str]] = field(default_factory=lambda: ({}, {}))


def ours(model: Path, places: Network, folder: Path, memory: int, tokens: int) -> list[Contender]:
    """Return edgellm on one machine, and by windows and rows on two."""
    secret, hosts = new_secret(), folder / "hosts.json"
    hosts.write_text(json.dumps([[places.address(place)] for place in range(2)]))
    write_secret(secret_file(hosts), secret)
    found = []
    for way in ("one", "windows", "rows"):
        settings = {"kind": way, "tokens": tokens, "memory": memory, "threads": 1}
        settings |= {"context": CONTEXT, "kv_bits": 16}
        endless = [sys.executable, "-m", "edgellm", "generate", str(model), "Once upon a time"]
        endless += ["--threads", "1", "--memory", str(memory), "--context", str(CONTEXT)]
        endless += ["--max-tokens", str(CONTEXT - 8), "--speculate", "off"]
        other: Sequence[str] = ()
        if way != "one":
            settings["machines"] = str(hosts)
            endless += ["--machines", str(hosts), "--split", way]
            other = join_words(str(model), places.address(1), str(memory))
        timed = [sys.executable, "-m", "edgellm.bench.studies.clusters.first", str(model)]
        found.append(
            Contender(
                "edgellm",
                way,
                timed=[*timed, json.dumps(settings)],
                seconds=_seconds_of_ours,
                endless=endless,
                other=other,
                ready="waiting at",
                given=f"{secret}\n",
            )
        )
    return found


def llama_cpp(
    binaries: Path, gguf: Path, places: Network, layers: int, tokens: int
) -> list[Contender]:
    """Return llama.cpp on one machine, and with half of the layers on an RPC server."""
    timed = [str(binaries / "llama-bench"), "-m", str(gguf), "-t", "1", "-p", "0"]
    timed += ["-n", str(SAMPLE), "-r", str(max(1, tokens // SAMPLE)), "-o", "json"]
    endless = [str(binaries / "llama-completion"), "-m", str(gguf), "-t", "1", "-no-cnv"]
    endless += ["-p", "Once upon a time", "-n", str(CONTEXT - 8), "-c", str(CONTEXT)]
    endless += ["--ignore-eos", "--simple-io"]
    address = f"{places.address(1)}:{RPC_PORT}"
    both = ["--rpc", address, "-ngl", str(layers // 2)]
    server = [str(binaries / "ggml-rpc-server"), "-t", "1"]
    server += ["-H", places.address(1), "-p", str(RPC_PORT)]
    return [
        Contender("llama.cpp", "one", timed=timed, seconds=_seconds_of_llama_bench),
        Contender(
            "llama.cpp",
            "layers by RPC",
            timed=[*timed, *both],
            seconds=_seconds_of_llama_bench,
            endless=[*endless, *both],
            other=server,
            port=RPC_PORT,
        ),
    ]


def mlx_lm(model: Path, places: Network, folder: Path, tokens: int) -> list[Contender]:
    """Return mlx-lm on one machine, and by its tensor split over MLX's ring."""
    ring = folder / "ring.json"
    ring.write_text(
        json.dumps([[f"{places.address(place)}:{RING_PORT + place}"] for place in range(2)])
    )
    command = [sys.executable, "-m", "edgellm.bench.studies.clusters.peers.mlx_rank", str(model)]
    ranks = [{"MLX_RANK": str(rank), "MLX_HOSTFILE": str(ring)} for rank in range(2)]
    timed = [*command, str(max(2, tokens // MLX_PART))]
    return [
        Contender("mlx-lm", "one", timed=timed, seconds=_seconds_of_lines),
        Contender(
            "mlx-lm",
            "tensor split",
            timed=timed,
            seconds=_seconds_of_lines,
            endless=[*command, str(ENDLESS)],
            other=[*command, str(ENDLESS)],
            environments=ranks,
        ),
    ]


def _seconds_of_ours(printed: str) -> float:
    return _fastest(json.loads(printed.splitlines()[-1])["seconds"])


def _seconds_of_llama_bench(printed: str) -> float:
    [test] = json.loads(printed[printed.index("[") :])
    return 1 / max(float(rate) for rate in test["samples_ts"])


def _seconds_of_lines(printed: str) -> float:
    return _fastest(list(map(float, printed.split())))


def _fastest(seconds: Sequence[float]) -> float:
    """Return the seconds of a token in the fastest sample, of tokens in a row."""
    return min(
        sum(seconds[begin : begin + SAMPLE]) / len(seconds[begin : begin + SAMPLE])
        for begin in range(max(1, len(seconds) - SAMPLE + 1))
    )
