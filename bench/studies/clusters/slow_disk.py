"""Disks of a rate: the real one, of which a control group lets through so much."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edgellm.errors import ConfigError

ROOT = Path("/sys/fs/cgroup")

LEAVE_SECONDS = 5.0
"""The last process of a group may take so long to be gone."""


@contextmanager
def slow_disk(name: str, file: Path, rate: float | None) -> Iterator[SlowDisk]:
    """Make a group whose processes read so many bytes per second of a disk at most.

    The disk is that of ``file``; None: as fast as it is.

    Raises ConfigError where this system does not let us.
    """
    if rate is None:
        yield SlowDisk(None)
        return
    group, limit, text = _form(name, file, rate)
    try:
        group.mkdir()
        limit.write_text(text)
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        raise ConfigError(
            f"reads cannot be slowed here: {error}",
            hint="run it as root on Linux, with control groups for disks, or leave out :RATE",
        ) from error
    try:
        yield SlowDisk(group)
    finally:
        patience = time.monotonic() + LEAVE_SECONDS
        while group.exists() and time.monotonic() < patience:
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


class SlowDisk:
    """A control group, or none."""

    def __init__(self, group: Path | None) -> None:
        self._group = group

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs another one in the group."""
        if self._group is None:
            return list(command)
        processes = shlex.quote(str(self._group / "cgroup.procs"))
        return ["/bin/sh", "-c", f"echo $$ > {processes} && exec {shlex.join(command)}"]


def _form(name: str, file: Path, rate: float) -> tuple[Path, Path, str]:
    """Return a group's folder, the file that takes its limit, and what that is told."""
    device = _whole_disk(file)
    old = ROOT / "blkio"
    if old.exists():
        group = old / name
        return group, group / "blkio.throttle.read_bps_device", f"{device} {int(rate)}"
    group = ROOT / name
    with suppress(OSError):
        (ROOT / "cgroup.subtree_control").write_text("+io")
    return group, group / "io.max", f"{device} rbps={int(rate)}"


def _whole_disk(file: Path) -> str:
    """Return the numbers of the disk that a file is on, of the whole one."""
    number = file.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    place = Path("/sys/dev/block", device)
    if (place / "partition").exists():
        return (place.resolve().parent / "dev").read_text().strip()
    return device
