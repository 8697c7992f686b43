"""Interrupt commands of a cluster at random moments: exit code 130, nothing left, machines free.

python tests/stress/cluster_interrupts.py --count 60 --seed 0 [--only rows,sending]

A machine waits in a process of its own. `generate --machines` gets Ctrl-C while it starts, calls
the machine, sends it its part, loads, reads the prompt, decodes, or ends; `cluster start` while it
starts machines or watches them. After each the machine has to be free within seconds, and now and
then a text has to be what it was.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import tiny
from support.clusters import write_hosts
from support.member_processes import MemberProcess

from edgellm.distributed.links.machines import read_machines, secret_file
from edgellm.distributed.links.secret import new_secret
from edgellm.distributed.start import machine_status

SHAPE = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 16,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 4096,
    "max_position_embeddings": 2048,
}
PROMPT = "Once upon a time there was " * 30
TOKENS = 40
PATIENCE = 10
"""Seconds in which a command has to have ended, and a machine to be free."""

# before this, Ctrl-C interrupts what Python itself imports, and the exit code is Python's
BEGUN = """
import runpy, sys
print("begun", file=sys.stderr, flush=True)
runpy.run_module("edgellm", run_name="__main__", alter_sys=True)
"""

SSH = """#!/bin/sh
until test "$1" = --; do shift; done
exec sh -c "exec $3"
"""


class Cluster:
    """A model, a machine that waits for it, and the file that names that."""

    def __init__(self, model, place, kind):
        self.kind, self.model = kind, model
        self.cache = place / "cache"
        os.environ["XDG_CACHE_HOME"] = str(self.cache)
        secret = new_secret()
        there = model if kind != "sending" else place / "nothing"
        self.member = MemberProcess(there, secret).__enter__()
        self.hosts = write_hosts(place / kind, [self.member.port], secret)
        self.machine, self.secret = read_machines(self.hosts)[1], secret.encode()
        split = "rows" if kind == "rows" else "windows"
        self.words = ["generate", str(model), PROMPT, "--max-tokens", str(TOKENS)]
        self.words += ["--machines", str(self.hosts), "--memory", "500MB", "--split", split]
        self.prepare()
        begun = time.monotonic()
        self.text = self.run_whole()
        self.seconds = time.monotonic() - begun

    def close(self):
        self.member.__exit__(None, None, None)

    def prepare(self):
        """Let a part be sent anew."""
        if self.kind == "sending":
            shutil.rmtree(self.cache / "edgellm" / "parts", ignore_errors=True)

    def run_whole(self):
        done = subprocess.run(
            [sys.executable, "-m", "edgellm", *self.words],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def faults_after(self):
        """Return what is wrong with the machine after a command was interrupted."""
        ends = time.monotonic() + PATIENCE
        while (facts := machine_status(self.machine, self.secret)).get("busy", True):
            if time.monotonic() > ends:
                return [f"the machine is not free: {facts}"]
            time.sleep(0.02)
        return []


def interrupted(words, after, environment):
    """Run a command, and interrupt it; return its exit code, what it said, and faults."""
    first = subprocess.Popen(
        [sys.executable, "-c", BEGUN, *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert first.stderr.readline() == "begun\n"
    time.sleep(after)
    first.send_signal(signal.SIGINT)
    try:
        _, said = first.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        first.kill()
        _, said = first.communicate()
        return None, said, [f"it has not ended after {PATIENCE} s"]
    faults = [] if "Traceback" not in said else ["a traceback"]
    left = [pid for pid in map(int, processes()) if session_of(pid) == first.pid]
    if left:
        faults.append(f"processes are left: {left}")
    return first.returncode, said, faults


def processes():
    return [name for name in os.listdir("/proc") if name.isdecimal()]


def session_of(pid):
    try:
        return os.getsid(pid)
    except OSError:
        return None


def generate_faults(cluster, rng, whole):
    """Interrupt a text; return when, and what was wrong."""
    cluster.prepare()
    after = rng.uniform(0.0, cluster.seconds * 1.05)
    code, said, faults = interrupted(cluster.words, after, os.environ)
    # the last: when all is done, Python gives signals back before it ends
    if code not in {130, 0, -signal.SIGINT}:
        faults.append(f"exit code {code}")
    faults += cluster.faults_after()
    if whole and cluster.run_whole() != cluster.text:
        faults.append("another text afterwards")
    return after, code, said, faults


def start_faults(model, place, rng):
    """Interrupt ``cluster start``; return when, and what was wrong."""
    after = rng.uniform(0.0, 4.0)
    with socket_of_a_free_port() as taken:
        port = taken.getsockname()[1]
    hosts = place / "start.json"
    hosts.write_text(
        json.dumps([{"ips": ["127.0.0.1"]}, {"ssh": "other", "ips": ["127.0.0.1"], "port": port}])
    )
    environment = os.environ | {"PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
    words = ["cluster", "start", str(model), str(hosts)]
    words += ["--edgellm", f"{sys.executable} -m edgellm"]
    code, said, faults = interrupted(words, after, environment)
    if code != 130:
        faults.append(f"exit code {code}")
    ends = time.monotonic() + PATIENCE
    machine, secret = read_machines(hosts)[1], b"x" * 43
    if secret_file(hosts).exists():
        secret = secret_file(hosts).read_bytes().strip()
    while "error" not in machine_status(machine, secret):
        if time.monotonic() > ends:
            faults.append("the machine listens still")
            break
        time.sleep(0.05)
    return after, code, said, faults


def socket_of_a_free_port():
    import socket

    return closing(socket.create_server(("127.0.0.1", 0)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=60, help="interrupts in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="windows,rows,sending,start", help="parted by commas")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    kinds, faulty, codes = options.only.split(","), 0, {}
    with tempfile.TemporaryDirectory(prefix="edgellm-cluster-interrupts-") as folder:
        place = Path(folder)
        (place / "bin").mkdir()
        (place / "bin" / "ssh").write_text(SSH)
        (place / "bin" / "ssh").chmod(0o755)
        model = tiny.write_model(place / "model", tiny.LLAMA | SHAPE)
        for kind in kinds:
            cluster = None if kind == "start" else Cluster(model, place, kind)
            for number in range(options.count // len(kinds)):
                if cluster is None:
                    after, code, said, faults = start_faults(model, place, rng)
                else:
                    after, code, said, faults = generate_faults(cluster, rng, number % 5 == 4)
                codes[kind, code] = codes.get((kind, code), 0) + 1
                for fault in faults:
                    sys.stdout.write(f"{kind} after {after:.2f} s: {fault}\n{said[-2000:]}\n")
                faulty += bool(faults)
            if cluster is not None:
                cluster.close()
    counts = ", ".join(f"{kind} {code}: {count}" for (kind, code), count in codes.items())
    sys.stdout.write(f"exit codes: {counts}\n{faulty} faults\n")
    return int(faulty > 0)


if __name__ == "__main__":
    sys.exit(main())
