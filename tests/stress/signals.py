"""Send signals to every long command at random moments: exit codes, terminal, files, processes.

python tests/stress/signals.py --count 60 --seed 0 [--only chat,convert]

Each command runs as the foreground job of a pseudo-terminal. After the signal it must have ended
with 128 and the signal's number (or have ended before), within seconds, with one line at most,
the terminal as it was, no process left, and only whole files.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import tiny
from support.jobs import EDGELLM, READY, Job
from support.local_server import serving

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHAPE = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 16,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 4096,
    "max_position_embeddings": 2048,
}
EARLIEST, LATEST = 0.1, 4.0
"""Seconds from the start to a signal."""

PATIENCE = 5
"""Seconds in which a command must have ended."""

PROMPT = "-p=Once upon a time there was"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=60, help="signals for each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="commands, parted by commas")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="edgellm-signals-") as folder, slow_hub() as hub:
        place = Path(folder)
        variables = {
            "HOME": folder,
            "XDG_CACHE_HOME": f"{folder}/cache",
            "XDG_STATE_HOME": f"{folder}/state",
            "HF_HOME": f"{folder}/hub",
            "HF_ENDPOINT": hub,
            "HF_HUB_OFFLINE": "0",
        }
        commands = long_commands(place)
        if options.only:
            commands = {name: commands[name] for name in options.only.split(",")}
        faults = 0
        sys.stdout.write(
            f"{'command':16} {'signal':8} {'sent':>4} {'ended':>5} {'early':>5}  faults\n"
        )
        for name, words in commands.items():
            for number in SIGNALS:
                found = Counter()
                sent = options.count // len(SIGNALS)
                for _ in range(sent):
                    after = rng.uniform(EARLIEST, LATEST)
                    found.update(outcomes(words, number, after, place=place, variables=variables))
                wrong = {what: n for what, n in found.items() if what not in {"ended", "early"}}
                faults += sum(wrong.values())
                sys.stdout.write(
                    f"{name:16} {number.name:8} {sent:4} "
                    f"{found['ended']:5} {found['early']:5}  {wrong or '-'}\n"
                )
                sys.stdout.flush()
        sys.stdout.write(f"{faults} faults\n")
    return int(faults > 0)


def long_commands(place):
    """Command lines that take a second or more, by name; what they write is in ``place/out``."""
    model = tiny.write_model(place / "model", tiny.CONFIGS["llama-3.2"] | SHAPE, seed=1)
    out = place / "out"
    few = ["--prompt-tokens", "64", "--gen-tokens", "8", "--repetitions", "3", "--threads", "1"]
    return {
        "chat": ["chat", "stories"],
        "chat answering": ["chat", "stories", "--max-tokens", "200"],
        "generate": ["generate", model, PROMPT, "--max-tokens", "1900"],
        "generate paged": ["generate", model, PROMPT, "--max-tokens", "900", "--memory", "60MB"],
        "convert": ["convert", model, out / "made", "--bits", "4"],
        "convert mixed": ["convert", model, out / "made", "--recipe", "mixed"],
        "export": ["export", model, out / "made.gguf"],
        "synth": ["synth", "tinyllama-1.1b", out / "made"],
        "verify": ["verify", model],
        "plan": ["plan", model],
        "download": ["info", "someone/some-model"],
        "bench": ["bench", model, "--backend", "mlx", *few, "--output", out / "r.json"],
        "bench all": ["bench", model, *few, "--output", out / "r.jsonl"],
        "bench disk": ["bench", "disk", model, "--output", out / "r.json"],
        "bench paging": ["bench", "paging", model, "--memory", "60MB,80MB"],
        "bench queries": ["bench", "queries", "stories", "--threads", "1,2"],
        "bench parity": ["bench", "parity", "stories", "--backend", "mlx,cpu"],
        "bench ablate": ["bench", "ablate", model, "--memory", "60MB"],
    }


def outcomes(words, number, after, *, place, variables):
    """What a signal has done to a command: ``ended`` or ``early`` (before it), and faults."""
    out = place / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    temporary = place / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    environment = variables | {"TMPDIR": str(temporary)}
    command = [str(word) for word in words]
    chat = command[0] == "chat"
    with Job(*command, command=EDGELLM, environment=environment) as job:
        begun = time.monotonic()
        if "--max-tokens" in command and chat:
            job.wait_for(READY)
            job.type("Tell me a long story about a dog\r")
            begun, after = time.monotonic(), after / 4
        while (left := begun + after - time.monotonic()) > 0:
            job.read(min(left, 0.05))
        asked = job.seen.count(READY)
        try:
            job.send(number)
        except ProcessLookupError:
            return ["early"]
        sent = time.monotonic()
        if chat and number == signal.SIGINT and asked:
            # Ctrl-C ends an answer, not the chat
            while not job.has_news(0.3) and time.monotonic() < sent + 20:
                job.type("\x04")
        try:
            news = job.news(30)
        except AssertionError:
            sys.stderr.write(job.seen[-2000:])
            return ["hangs"]
        seconds = time.monotonic() - sent
        ends = time.monotonic() + 1
        while job.processes() and time.monotonic() < ends:
            time.sleep(0.02)  # a child that reads from it sees its end a moment later
        asking = chat and asked > 0
        found = list(verdict(job, int(news.split()[1]), number, asking=asking))
        if seconds > PATIENCE and not (asking and number == signal.SIGINT):
            found.append("slow")
    found += [f"half-made {path.name}" for path in out.iterdir() if not whole(path)]
    found += [f"leftover {path.name}" for path in temporary.iterdir()]
    return found


def verdict(job, code, number, *, asking):
    """Yield how it ended, and each fault."""
    if code == 0 and not asking:
        yield "early"
    elif code in {128 + number, -number} or (asking and number == signal.SIGINT and code == 0):
        yield "ended"
    else:
        yield f"exit {code}"
    if "Traceback" in job.seen or "Exception ignored" in job.seen:
        sys.stderr.write(job.seen[-2000:])
        if "__main__.py" not in job.seen:
            yield "traceback before our first line"
        else:
            yield "traceback"
    yield from job.disorder
    for pid in job.processes():
        yield "orphan"
        sys.stderr.write(f"{Path(f'/proc/{pid}/cmdline').read_bytes()!r}\n")


def whole(path):
    """Whether a file may stay: a whole one, or a conversion that another one goes on with."""
    if path.name == "made.partial":
        return not list(path.glob("*.edgellm.*"))
    if path.suffix == ".json":
        return bool(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return all(json.loads(line) for line in path.read_text().splitlines())
    if path.name == "made":
        return (path / "config.json").exists() and (path / "edgellm.json").exists()
    return path.suffix == ".gguf"


@contextmanager
def slow_hub():
    """The address of a Hub whose one model takes a minute to be downloaded."""
    config = json.dumps(tiny.CONFIGS["llama-3.2"]).encode()
    sizes = {"config.json": len(config), "model.safetensors": 60 << 20}

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            """Keep quiet."""

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            with suppress(OSError):  # the client was stopped
                self.answer(body=True)

        def answer(self, *, body):
            name = self.path.rpartition("/")[2]
            listing = json.dumps(
                {
                    "id": "someone/some-model",
                    "sha": "1" * 40,
                    "siblings": [{"rfilename": file, "size": size} for file, size in sizes.items()],
                }
            ).encode()
            size = sizes.get(name, len(listing))
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.send_header("ETag", '"abc"')
            self.send_header("X-Repo-Commit", "1" * 40)
            self.end_headers()
            if not body:
                return
            if name == "config.json":
                self.wfile.write(config)
            elif name in sizes:
                for _ in range(60):
                    self.wfile.write(bytes(1 << 20))
                    time.sleep(1)
            else:
                self.wfile.write(listing)

    with serving(Hub) as server:
        yield server.address


if __name__ == "__main__":
    os.environ.pop("EDGELLM_TEST_JOB", None)
    sys.exit(main())
