"""What a process holds: threads, open files, memory."""

import gc
import os
import platform
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

NOTHING = ([], [])


def held():
    """The threads of this process, and its open files where the system tells them."""
    gc.collect()
    files = set()
    for name in os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else ():
        with suppress(OSError):  # the list itself, which is read by now
            status = os.fstat(int(name))
            files.add((int(name), status.st_dev, status.st_ino))
    return set(threading.enumerate()), files


def more_since(before):
    """The names of threads, and the open files, that are there now and were not before.

    What tests before have left may end at any time, and is not missed.
    """
    threads, files = held()
    return sorted(thread.name for thread in threads - before[0]), sorted(files - before[1])


def resident_bytes(process):
    """The memory that a process holds."""
    if platform.system() == "Linux":
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * 4096
    shown = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True, check=True
    )
    return int(shown.stdout) * 1024
