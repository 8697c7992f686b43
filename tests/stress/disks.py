"""Every way to write a file, on disks that are full or read-only: what is said, and what is left.

    python tests/stress/disks.py [--states STATE,STATE] [WRITER ...]

Each case has a small tmpfs of its own in a mount namespace (Linux; root, or user namespaces). It
has to end with a clear error, or with a warning where the file is only a cache; the old file is
whole, and nothing is left beside it. A table is printed; the exit status says whether all was well.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.disk_limits import fill
from support.tiny import CONFIGS, write_model

DISK_BYTES = 128 << 20
PROMPT = "Once upon a time there was a little dog. " * 40
BENCH = [
    "bench",
    "@MODEL",
    "--backend",
    "mlx",
    "--prompt-tokens",
    "8",
    "--gen-tokens",
    "2",
    "--repetitions",
    "1",
]


@dataclass(frozen=True)
class Writer:
    """A command that writes.

    Attributes:
        words: of the command line; @DISK, @MODEL and @GGUF stand for paths.
        old: names of files or folders that are there already, in the disk.
        lines: standard input.
        environment: variables that are paths in the disk.
        only_warns: whether what it writes is only a cache, without which it does its work.
        keeps: whether finished files are kept to go on with.
        ignored: suffixes of what it writes besides.
    """

    words: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    lines: str = ""
    environment: tuple[str, ...] = ()
    only_warns: bool = False
    keeps: bool = False
    ignored: tuple[str, ...] = ()


WRITERS = {
    "convert": Writer(("convert", "@MODEL", "@DISK/made"), keeps=True),
    "convert --force": Writer(
        ("convert", "@MODEL", "@DISK/model", "--force", "--bits", "8"), ("model",), keeps=True
    ),
    "convert GGUF": Writer(("convert", "@GGUF", "@DISK/made"), keeps=True),
    "convert, temporary files": Writer(
        ("convert", "@GGUF", "@OTHER/made", "--force"), environment=("TMPDIR",), only_warns=True
    ),
    "export": Writer(("export", "@MODEL", "@DISK/made.gguf")),
    "export --force": Writer(("export", "@MODEL", "@DISK/old.gguf", "--force"), ("old.gguf",)),
    **{
        f"bench --output {suffix}": Writer(
            (*BENCH, "--output", f"@DISK/old.{suffix}"), (f"old.{suffix}",)
        )
        for suffix in ("json", "jsonl", "csv", "md", "html")
    },
    "bench report": Writer(
        ("bench", "report", "@OTHER/records.json", "--html", "@DISK/old.html"), ("old.html",)
    ),
    "chat --continue": Writer(
        ("chat", "@MODEL", "--continue", "--max-tokens", "4"),
        lines="hello\n",
        environment=("XDG_CACHE_HOME",),
        ignored=(".bin",),
    ),
    "/save": Writer(
        ("chat", "@MODEL", "--max-tokens", "4"), ("talk.json",), "hello\n/save @DISK/talk.json\n"
    ),
    "generate --cache": Writer(
        ("generate", "@MODEL", "-p", PROMPT, "--max-tokens", "2", "--cache"),
        environment=("XDG_CACHE_HOME",),
        only_warns=True,
    ),
    "compiled kernels": Writer(
        ("generate", "@MODEL", "-p", "hello", "--max-tokens", "2"),
        environment=("XDG_CACHE_HOME",),
        only_warns=True,
    ),
}

STATES = ("full", "half left", "fills up", "read-only", "file limit")
"""``fills up``: there is room when it begins, and none from its first bytes on."""


class Place:
    """The paths that a case has: its disk, and a model beside it."""

    def __init__(self, root):
        self.root = root
        self.disk = root / "disk"
        self.disk.mkdir()
        model = CONFIGS["llama-2"] | {
            "max_position_embeddings": 2048,
            "num_hidden_layers": 6,
            "hidden_size": 256,
            "intermediate_size": 512,
        }
        self.model = write_model(root / "model", model)
        self.home = root / "home"
        self.home.mkdir()

    def run(self, words, *, lines="", environment=(), limit=None):
        """Run a command line."""
        names = {"@DISK": self.disk, "@MODEL": self.model, "@OTHER": self.root}
        names["@GGUF"] = self.root / "model.gguf"

        def named(text):
            for name, path in names.items():
                text = text.replace(name, str(path))
            return text

        def before():
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        variables = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        variables |= dict.fromkeys(environment, str(self.disk))
        return subprocess.run(
            [sys.executable, "-m", "edgellm", *map(named, words)],
            input=named(lines),
            capture_output=True,
            text=True,
            env=variables,
            cwd=self.root,
            preexec_fn=before,
            check=False,
        )

    def make(self, writer):
        """Make what a command reads."""
        words = " ".join(writer.words)
        if "@GGUF" in words and not (self.root / "model.gguf").exists():
            self.run(("export", "@MODEL", "@OTHER/model.gguf"))
        if "records.json" in words and not (self.root / "records.json").exists():
            self.run((*BENCH, "--output", "@OTHER/records.json"))

    def mount(self):
        """Give the place an empty disk."""
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", self.disk], check=True
        )

    def unmount(self):
        """Take the disk away."""
        subprocess.run(["umount", self.disk], check=True)

    def put_old(self, writer):
        """Put there what the command replaces."""
        for name in writer.old:
            if name == "model":
                self.run(("convert", "@MODEL", "@DISK/model"))
            elif name == "talk.json":
                (self.disk / name).write_text('{"edgellm_chat": 1, "messages": []}')
            else:
                (self.disk / name).write_text("GGUF, the old one\n")


def contents(folder, ignored=()):
    """Return the bytes of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "filler" and path.suffix not in ignored
    }


def written(place, writer):
    """Return how many bytes a writer writes where there is room, and those of its largest file."""
    place.mount()
    try:
        place.put_old(writer)
        before = contents(place.disk, writer.ignored)
        done = place.run(writer.words, lines=writer.lines, environment=writer.environment)
        assert done.returncode == 0, done.stderr
        after = contents(place.disk, writer.ignored)
    finally:
        place.unmount()
        shutil.rmtree(place.root / "made", ignore_errors=True)
    sizes = [len(data) for name, data in after.items() if before.get(name) != data]
    return sum(sizes) or 1 << 20, max(sizes, default=1 << 20)


def tried(place, writer, state, grown, largest):
    """Run a writer on a disk in a state; return what it said, what was left, and the faults."""
    place.mount()
    try:
        place.put_old(writer)
        before = contents(place.disk, writer.ignored)
        limit = None
        ended = Event()
        match state:
            case "full":
                fill(place.disk)
            case "half left":
                fill(place.disk, leave=grown // 2)
            case "read-only":
                subprocess.run(["mount", "-o", "remount,ro", place.disk], check=True)
            case "fills up":
                fill(place.disk, leave=grown + (36 << 20))  # conversions want 32 MB to spare
                watcher = Thread(target=fill_soon, args=(place.disk, ended), daemon=True)
                watcher.start()
            case "file limit":
                limit = largest // 2
        done = place.run(
            writer.words, lines=writer.lines, environment=writer.environment, limit=limit
        )
        ended.set()
        after = contents(place.disk, writer.ignored)
    finally:
        place.unmount()
        shutil.rmtree(place.root / "made", ignore_errors=True)
    return judged(writer, state, done, before, after)


def fill_soon(disk, ended):
    """Fill a disk as soon as something is written to it."""
    while not ended.is_set():
        for _ in disk.rglob("*.edgellm.partial"):
            fill(disk)
            return
        time.sleep(0.0005)


def is_whole(name, content):
    """Whether it is a result file that was written before the one that found no room."""
    ends = {".csv": b"\n", ".json": b"}\n", ".jsonl": b"}\n", ".html": b"</html>\n"}
    end = ends.get(Path(name).suffix, b"\n")
    return Path(name).stem == "old" and content.endswith(end) and name != "old.gguf"


def judged(writer, state, done, before, after):
    """Return what was said, what is left beside the old files, and what is wrong with it."""
    faults = []
    said = [line for line in done.stderr.splitlines() if line.startswith(("error", "warning"))]
    hints = [line for line in done.stderr.splitlines() if line.startswith("hint: ")]
    left = sorted(after.keys() - before.keys())
    if "Traceback" in done.stderr or "0.0 GB" in done.stderr:
        faults.append("a traceback, or a size of nothing")
    done_in_time = state == "fills up" and done.returncode == 0
    changed = any(
        after.get(name) != content and not is_whole(name, after.get(name, b""))
        for name, content in before.items()
    )
    if changed and not done_in_time:
        faults.append("the old file is not whole")
    partial = [name for name in left if name.endswith((".edgellm.partial", ".edgellm.lock"))]
    if partial:
        faults.append(f"{partial} is left")
    if writer.only_warns:
        if done.returncode and not said:
            faults.append(f"exit status {done.returncode} and nothing said")
    elif done_in_time:
        said = ["(was done before the disk was full)"]
    else:
        if done.returncode in (0, -9) or not said:
            faults.append(f"exit status {done.returncode}, said {said}")
        if left and not writer.keeps:
            faults.append(f"{left} is left")
        resumes = any("continues where it stopped" in hint for hint in hints)
        if resumes != bool(left):
            faults.append(f"its hint is {hints}, and {len(left)} files are left")
    return " ".join([*said, *hints]), left, faults


def say(line):
    """Write a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main():
    """Try all writers in all states."""
    if not os.environ.get("EDGELLM_OWN_MOUNTS"):
        os.environ["EDGELLM_OWN_MOUNTS"] = "1"
        words = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
        os.execvp(words[0], [*words, sys.executable, *sys.argv])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", default=",".join(STATES))
    parser.add_argument("names", nargs="*", metavar="WRITER", help=", ".join(WRITERS))
    options = parser.parse_args()
    failed = 0
    say("| writer | state | said | left | well |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        place = Place(Path(root))
        for name in options.names or WRITERS:
            place.make(WRITERS[name])
            sizes = None
            for state in options.states.split(","):
                if sizes is None and state in ("half left", "fills up", "file limit"):
                    sizes = written(place, WRITERS[name])
                said, left, faults = tried(place, WRITERS[name], state, *(sizes or (0, 0)))
                failed += bool(faults)
                said = said.replace(str(place.root), "")[:200]
                verdict = "; ".join(faults) or "yes"
                say(f"| {name} | {state} | {said} | {len(left)} | {verdict} |")
    say(f"{failed} cases failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
