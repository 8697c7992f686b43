"""Kill everything that writes at random moments, and run it again: the same bytes, nothing lost.

python tests/stress/kills.py --count 120 --seed 0 [--only convert,export]

Each operation runs once undisturbed. Then a copy of its folder is killed (SIGKILL and SIGTERM in
turn, once to three times in a row), and looked at: under its final name a file is whole, the old
one or the new one; strangers' files are where they were. Then it runs to its end: the folder is
what the undisturbed run has made, byte for byte. The disk is made slow, so that kills come while
something is being written.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.adapters import RANK, write_peft
from support.gguf_files import WIDE, write_gguf
from support.tiny import CONFIGS, write_model

LLAMA = CONFIGS["llama-2"]
OURS = (".edgellm.partial", ".edgellm.lock", ".edgellm.manifest")
GROWING = ("made.partial", "made.edgellm.replaced")

SLOW_DISK = """
import os, sys, time
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
place, pause = sys.argv[1], float(sys.argv[2])
def slow(event, arguments):
    if event in STEPS and str(arguments[0]).startswith(place):
        time.sleep(pause)
sys.addaudithook(slow)
"""

COMMAND = (
    SLOW_DISK
    + """
from edgellm.cli.app import main
import edgellm.converters, edgellm.converters.synthetic
print("begun", flush=True)
sys.exit(main(sys.argv[3:]))
"""
)

CHAT = (
    SLOW_DISK
    + """
import edgellm
with edgellm.load(sys.argv[3], memory="500MB", threads=1) as llm:
    chat = llm.chat()
    chat.messages = [{"role": "user", "content": "Once upon a time. " * 50_000}]
    print("begun", flush=True)
    for _ in range(20):
        chat.save(os.path.join(place, "made.json"))
"""
)

CACHE = (
    SLOW_DISK
    + """
import edgellm
kept = os.path.join(place, "kept")
with edgellm.load(sys.argv[3], memory="500MB", threads=1, prompt_cache=kept) as llm:
    llm.generate([30], max_tokens=2)  # compiles; too short to be kept
    print("begun", flush=True)
    for number in range(12):
        llm.generate(list(range(30 + number, 230 + number)), max_tokens=2)
"""
)


@dataclass(frozen=True)
class Operation:
    """A program and its arguments, in which ``{}`` stands for the folder that it writes to."""

    code: str
    arguments: list[str]


def operations(sources):
    """Every operation that writes, by its name."""
    plain = write_model(sources / "plain", LLAMA)
    write_gguf(sources / "model.gguf", WIDE, kinds=lambda name: "Q4_0")
    random_state = np.random.RandomState(0)
    shapes = {"lora_A.weight": (RANK, 64), "lora_B.weight": (64, RANK)}
    adapter = write_peft(
        sources / "adapter",
        {
            f"model.layers.{index}.self_attn.q_proj.{part}": random_state.standard_normal(
                shape
            ).astype(np.float32)
            for index in range(4)
            for part, shape in shapes.items()
        },
    )
    long = write_model(sources / "long", LLAMA | {"max_position_embeddings": 2048})
    made, file = "{}/made", "{}/made.gguf"
    convert = ["convert", plain, made]
    commands = {
        "convert": convert,
        "convert gguf": ["convert", sources / "model.gguf", made],
        "convert adapter": [*convert, "--adapter", adapter],
        "convert mixed": [*convert, "--recipe", "mixed"],
        "convert force": [*convert, "--bits", "8", "--force"],
        "synth": ["synth", "tiny-llama", made],
        "export": ["export", plain, file],
        "export force": ["export", plain, file, "--force"],
    }
    made = {name: Operation(COMMAND, list(map(str, words))) for name, words in commands.items()}
    made["chat save"] = Operation(CHAT, [str(plain)])
    made["cache save"] = Operation(CACHE, [str(long)])
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=120, help="kills in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="operations, parted by commas")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    faults = 0
    with tempfile.TemporaryDirectory(prefix="edgellm-kills-") as folder:
        root = Path(folder).resolve()
        os.environ |= {"XDG_CACHE_HOME": f"{root}/cache", "HF_HUB_OFFLINE": "1"}
        (root / "sources").mkdir()
        chosen = operations(root / "sources")
        if options.only:
            chosen = {name: chosen[name] for name in options.only.split(",")}
        show(f"{'operation':16} {'kills':>5} {'at work':>7} {'SIGKILL':>7} {'SIGTERM':>7}  faults")
        for number, (name, operation) in enumerate(chosen.items()):
            begin, end = (options.count * at // len(chosen) for at in (number, number + 1))
            found = Counter(kill_often(name, operation, root, end - begin, rng))
            signals = [found.pop(key, 0) for key in ("kills", "at work", "SIGKILL", "SIGTERM")]
            faults += found.total()
            columns = zip(signals, (5, 7, 7, 7), strict=True)
            columns = " ".join(f"{value:{width}}" for value, width in columns)
            show(f"{name:16} {columns}  {dict(found) or '-'}")
    show(f"{faults} faults")
    return int(faults > 0)


def show(line):
    """Write a line of the table as soon as it is known."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def kill_often(name, operation, root, kills, rng):
    """Yield what is counted: kills, signals, and every fault."""
    prepared, place = root / f"{name} prepared", root / "place"
    replaced = prepare(name, operation, prepared)
    with running(operation, copied(prepared, place)) as process:
        begun = time.perf_counter()
        yield from outcome_of(process)
    duration = time.perf_counter() - begun
    expected = snapshot(place)
    before = snapshot(prepared)
    strangers = {file: digest for file, digest in before.items() if file not in replaced}
    lost = [file for file, digest in strangers.items() if expected.get(file) != digest]
    if lost:
        yield f"strangers' files are lost: {', '.join(lost)}"
    while kills > 0:
        copied(prepared, place)
        for _ in range(min(kills, rng.randint(1, 3))):
            kills -= 1
            sent = rng.choice([signal.SIGKILL, signal.SIGTERM])
            with running(operation, place) as process:
                time.sleep(rng.uniform(0, duration))
                if process.poll() is None:
                    yield "at work"
                process.send_signal(sent)
                process.wait()
            yield from ("kills", sent.name)
            yield from half_made(snapshot(place), before, expected, strangers)
        if snapshot(place) != expected:
            with running(operation, place) as process:
                yield from outcome_of(process)
        if snapshot(place) != expected:
            yield "other bytes: " + difference(snapshot(place), expected)


def prepare(name, operation, place):
    """Make the folder as it is before: strangers' files all around, and what will be replaced.

    Return the names of the latter.
    """
    place.mkdir()
    if name == "convert force":
        with running(Operation(COMMAND, [*operation.arguments[:3], "--bits", "4"]), place) as old:
            old.communicate()
    if name == "export force":
        (place / "made.gguf").write_bytes(b"GGUF of yesterday")
    if name == "chat save":
        (place / "made.json").write_text("yesterday's")
    replaced = set(snapshot(place))
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "thesis.tex").write_text("years of work")
    for neighbour in (
        "made.txt",
        "made.partial.txt",
        ".made.partial",
        "made.gguf.bak",
        "made.lock",
    ):
        (place / neighbour).write_text(f"{neighbour} is a stranger's")
    if name == "convert force":
        (place / "made" / "notes.txt").write_text("what I found")
        (place / "made" / "link").symlink_to("../elsewhere")
    if name == "cache save":
        (place / "kept").mkdir()
        (place / "kept" / "notes.txt").write_text("what I found")
    return replaced


def copied(prepared, place):
    """Copy the folder as it was before, in place of what has become of it."""
    shutil.rmtree(place, ignore_errors=True)
    return shutil.copytree(prepared, place, symlinks=True)


def running(operation, place, pause=0.003):
    """Start an operation in a folder, and wait until it has begun."""
    words = [word.replace("{}", str(place)) for word in operation.arguments]
    process = subprocess.Popen(
        [sys.executable, "-c", operation.code, str(place), str(pause), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if process.stdout.readline() != "begun\n":
        raise AssertionError(process.communicate()[1])
    return process


def outcome_of(process):
    """Yield a fault if a process that nobody disturbs does not end well."""
    said = process.communicate()[1].strip()
    # killed when all was in place and only its lock was left
    if process.returncode and "already exists" not in said:
        yield f"ended with {process.returncode}: {said[-300:]}"


def snapshot(folder):
    """Every file and link under a folder by its path, and what it holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        elif path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = digest
    return found


def half_made(now, before, expected, strangers):
    """Yield a fault for what is neither as before nor as in the end, nor still growing."""
    for name, digest in now.items():
        growing = Path(name).parts[0] in GROWING or name.endswith(OURS)
        if not growing and digest not in (before.get(name), expected.get(name)):
            yield f"half made: {name}"
    if not set(strangers.values()) <= set(now.values()):
        yield "strangers' files are lost"
    # what is under the final name is one model's, and all of it
    models = [
        {name: digest for name, digest in found.items() if name.startswith("made/")}
        for found in (now, before, expected)
    ]
    own = [{name: model[name] for name in model.keys() - strangers.keys()} for model in models]
    if own[0] not in ({}, *own[1:]):
        yield "half a model"


def difference(found, expected):
    """Name the files in which two snapshots differ."""
    names = found.keys() | expected.keys()
    return ", ".join(sorted(name for name in names if found.get(name) != expected.get(name)))


if __name__ == "__main__":
    sys.exit(main())
