"""Many cases in processes of their own: one that dies of a case is started again behind it."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from fuzz.doors import DOORS
from fuzz.harness import FAULTS, run_cases, warm_up

CHUNK = 2000
"""Cases whose result is written at once; a run that was stopped goes on behind the last chunk."""

HANG_SECONDS = 20
"""Of processor time, after which the system ends a worker, whatever it is in the middle of."""

OUTCOMES = ("accepted", "refused", "compared", "unreadable elsewhere")
HANG_WALL_SECONDS = 180
DATA_BYTES = 6 << 30
"""Bytes that a worker may have; what goes beyond is a MemoryError."""


def chunks_of(count, seed):
    """The ranges (start, end) of a door's cases."""
    end = seed + count
    return [(start, min(start + CHUNK, end)) for start in range(seed, end, CHUNK)]


def work(name, ranges, results):
    """The worker's side: run ranges of a door's cases, and write the result of each."""
    quiet()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
    place = results / f"{name}.at"
    with tempfile.TemporaryDirectory(prefix="edgellm-fuzz-", dir=memory_folder()) as folder:
        tempfile.tempdir = folder  # what the product makes in passing
        door = DOORS[name](Path(folder) / "case")
        warm_up(door)
        with place.open("wb", buffering=0) as progress:

            def at(number):
                progress.seek(0)
                progress.write(b"%-20d" % number)
                signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)
                signal.setitimer(signal.ITIMER_REAL, HANG_WALL_SECONDS)

            for start, end in ranges:
                begun = time.process_time()
                counts, found = run_cases(door, range(start, end), at=at, keep=results / "cases")
                counts["milliseconds"] = round(1000 * (time.process_time() - begun))
                _write(results, name, (start, end), counts, found)


def run_door(name, ranges, results):
    """Run the ranges of a door that have no result yet; a case that a worker dies of counts."""
    while missing := [one for one in ranges if not _path(results, name, *one).exists()]:
        command = [sys.executable, sys.argv[0], "--worker", name, "--results", str(results)]
        command += [f"{start}-{end}" for start, end in missing]
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            continue
        if done.returncode == -signal.SIGINT:
            raise KeyboardInterrupt
        if done.returncode > 0:
            raise RuntimeError(f"the worker of {name} failed: this is the harness's own fault")
        _note_death(name, missing, results, done.returncode)


def _note_death(name, missing, results, code):
    """Write down the case that a worker died of, and what is left of its chunk as chunks."""
    try:
        number = int((results / f"{name}.at").read_text())
    except (OSError, ValueError) as error:
        raise RuntimeError(f"the worker of {name} did not start ({code})") from error
    [(start, end)] = [(start, end) for start, end in missing if start <= number < end]
    # of the cases before it in the chunk the counts are lost: they are run again
    counts = Counter({"refused": 1, "died": 1})
    found = [{"case": number, "fault": "died", "about": f"exit status {code}"}]
    _write(results, name, (number, number + 1), counts, found)
    for part in ((start, number), (number + 1, end)):
        if part[0] < part[1]:
            run_door(name, [part], results)
    whole = Counter()
    listed = []
    for part in ((start, number), (number, number + 1), (number + 1, end)):
        path = _path(results, name, *part)
        if path.exists():
            document = json.loads(path.read_text())
            whole.update(document["counts"])
            listed += document["found"]
            path.unlink()
    _write(results, name, (start, end), whole, listed)


def table(results):
    """The table of all results in a folder, and whether there is no fault."""
    totals = {}
    for path in sorted(results.glob("*_*_*.json")):
        document = json.loads(path.read_text())
        totals.setdefault(document["door"], Counter()).update(document["counts"])
    heads = ("door", "cases", *OUTCOMES, *FAULTS, "ms a case")
    lines = [heads]
    whole = Counter()
    for name in DOORS:
        if name in totals:
            lines.append(_line(name, totals[name]))
            whole.update(totals[name])
    lines.append(_line("all", whole))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        )
        for line in lines
    )
    return text, not any(whole[fault] for fault in FAULTS)


def memory_folder():
    """A folder in memory for the files of cases; None: the system's usual one."""
    folder = Path("/dev/shm")
    if folder.is_dir() and shutil.disk_usage(folder).free > 64 << 20:
        return str(folder)
    return None


def quiet():
    """Send what libraries in C and Rust say of damaged input nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    sys.stderr = os.fdopen(os.dup(2), "w")
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _line(name, counts):
    cases = counts["accepted"] + counts["refused"]
    numbers = [cases, *(counts[name] for name in (*OUTCOMES, *FAULTS))]
    pace = f"{counts['milliseconds'] / max(1, cases):.2f}"
    return (name, *(f"{number:,}" for number in numbers), pace)


def _path(results, name, start, end):
    return results / f"{name}_{start}_{end}.json"


def _write(results, name, span, counts, found):
    document = {"door": name, "counts": dict(sorted(counts.items())), "found": found}
    path = _path(results, name, *span)
    partial = path.with_suffix(".new")
    partial.write_text(json.dumps(document, indent=1), encoding="utf-8")
    partial.replace(path)
