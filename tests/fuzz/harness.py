"""Cases of a door: run, timed, watched, and counted by what came of them."""

import base64
import gc
import json
import os
import random
import re
import resource
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from edgellm.errors import EdgeLLMError
from fuzz.door import DifferenceError, UnreadableError

SECONDS = 2.0
"""Of processor time for a case."""

MEMORY = 200_000_000
"""Bytes for a case."""

UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of what ``ru_maxrss`` counts."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What no message may hold: C0 but tab and newline, DEL, C1."""

FAULTS = ("traceback", "slow", "large", "control characters", "difference", "died")
WARM_UP = 20
"""Cases before the first that counts: what a first call imports is not the input's doing."""


def case_of(door, number):
    """The files of a case: they depend on door and number alone."""
    return door.damage(random.Random(f"{door.name} {number}"))


def run_case(door, files):
    """Take one case in.

    Returns all that came of it (``accepted`` or ``refused``, ``compared``), its faults with what
    is to be said of them, and the error it was refused with.
    """
    faults = {}
    refusal = None
    outcomes = ["refused"]
    memory = _memory()
    peak = _peak()
    begun = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)  # as Python itself does
            opened = door.open(files)
        took = time.process_time() - begun
        outcomes = ["accepted"]
        if door.check(opened, files):
            outcomes.append("compared")
    except EdgeLLMError as error:
        took = time.process_time() - begun
        refusal = error
        message = f"{error.message}\n{error.hint}"
        if found := CONTROL.search(message):
            faults["control characters"] = f"{found[0]!r} in {message[:300]!r}"
    except DifferenceError as error:
        faults["difference"] = str(error)[:600]
    except UnreadableError:
        outcomes.append("unreadable elsewhere")
    except KeyboardInterrupt:
        raise
    except BaseException:  # a panic of a Rust library is no Exception
        took = time.process_time() - begun
        faults["traceback"] = traceback.format_exc(limit=-12)[-3000:]
    if took > SECONDS:
        faults["slow"] = f"{took:.2f} s"
    if _peak() > peak and _peak() - memory > MEMORY:
        faults["large"] = f"{(_peak() - memory) / 1e6:.0f} MB"
        _forget_peak()
    return outcomes, faults, refusal


def run_cases(door, numbers, *, at=lambda number: None, keep=None):
    """Run cases; returns how often each outcome and each fault came, and some of the faults.

    Args:
        door: where they come in.
        numbers: the cases.
        at: told each number before its case is run.
        keep: a folder for the files of cases with faults.
    """
    counts = Counter()
    found = []
    for number in numbers:
        at(number)
        files = case_of(door, number)
        outcomes, faults, refusal = run_case(door, files)
        counts.update(outcomes)
        if refusal is not None:
            counts[f"refused as {type(refusal).__name__}"] += 1
        for fault, about in faults.items():
            counts[fault] += 1
            if sum(1 for one in found if one["fault"] == fault) < 20:
                found.append({"case": number, "fault": fault, "about": about})
                if keep is not None:
                    save_case(keep / f"{door.name}-{number}.json", door, files, about)
    return counts, found


def warm_up(door):
    """Run some cases that do not count."""
    for number in range(WARM_UP):
        run_case(door, case_of(door, -1 - number))
    gc.collect()
    _forget_peak()


def save_case(path, door, files, about):
    """Write a case down, so that it can be opened again whatever becomes of the damage."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {name: base64.b64encode(data).decode() for name, data in files.items()}
    text = json.dumps({"door": door.name, "about": about, "files": stored}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def load_case(path):
    """The door's name and the files of a case that was written down."""
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    files = {name: base64.b64decode(data) for name, data in document["files"].items()}
    return document["door"], files


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT


def _memory():
    """Bytes that this process holds now; the most so far where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _peak()


def _forget_peak():
    """Have the system measure the peak from here on, where it can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
