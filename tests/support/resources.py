"""What a process holds: reader threads and open files."""

import os
import platform
import subprocess
import threading
from pathlib import Path


def threads():
    return sorted(thread.name for thread in threading.enumerate() if "reader" in thread.name)


def descriptors():
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0


def resident_bytes(process):
    """The memory that a process holds."""
    if platform.system() == "Linux":
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * 4096
    shown = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True, check=True
    )
    return int(shown.stdout) * 1024
