"""Processes that the system holds to a number of bytes, by control groups."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edgellm.errors import ConfigError

ROOT = Path("/sys/fs/cgroup")
NAME = "edgellm"
LIMITS = ("memory.limit_in_bytes", "memory.max")
"""The file that takes a group's limit, in version 1 and in version 2 of control groups."""

SWAPS = ("memory.memsw.limit_in_bytes", "memory.swap.max")


@contextmanager
def capped(command: Sequence[str], limit: int | None) -> Iterator[list[str]]:
    """Give the command that runs ``command`` with at most ``limit`` bytes, its share of the page cache included.

    Raises:
        ConfigError: this system does not let us; that takes Linux, and the right to make control
            groups.
    """
    if limit is None:
        yield list(command)
        return
    group = _make_group(limit)
    try:
        enter = (
            f"echo $$ > {shlex.quote(str(group / 'cgroup.procs'))} && exec {shlex.join(command)}"
        )
        yield ["/bin/sh", "-c", enter]
    finally:
        # a group can be removed only when the last of its processes is really gone
        for _ in range(100):
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


def can_cap() -> bool:
    """Whether ``capped`` works here."""
    try:
        with capped(["true"], 1 << 30):
            return True
    except ConfigError:
        return False


def _make_group(limit: int) -> Path:
    tried = []
    for version, parent in _parents():
        _remove_stale(parent)
        group = parent / f"{NAME}-{os.getpid()}-{time.monotonic_ns()}"
        try:
            group.mkdir()
        except OSError as error:
            tried.append(f"{group}: {error.strerror}")
            continue
        try:
            (group / LIMITS[version]).write_text(str(limit))
        except OSError as error:
            tried.append(f"{group / LIMITS[version]}: {error.strerror}")
            group.rmdir()
            continue
        with suppress(OSError):  # where there is no swap there is nothing to forbid
            (group / SWAPS[version]).write_text(str(limit if version == 0 else 0))
        return group
    raise ConfigError(
        f"memory cannot be capped here: {'; '.join(tried) or 'there are no control groups for memory'}",
        hint="run it as root on Linux, or leave the cap out",
    )


def _remove_stale(parent: Path) -> None:
    """Remove empty groups that runs have left which were ended from outside."""
    for group in parent.glob(f"{NAME}-*-*"):
        if not Path(f"/proc/{group.name.split('-')[1]}").exists():
            with suppress(OSError):
                group.rmdir()


def _parents() -> Iterator[tuple[int, Path]]:
    """Groups that may have a group of ours inside: our own, and above it, since version 2 wants processes in leaves only."""
    own = Path("/proc/self/cgroup")
    for line in own.read_text().splitlines() if own.exists() else ():
        number, controllers, name = line.split(":", 2)
        place = name.lstrip("/")
        if "memory" in controllers.split(","):
            yield 0, ROOT / "memory" / place
        elif number == "0":
            folder = ROOT / place
            yield from (
                (1, parent) for parent in (folder, *folder.parents) if parent.is_relative_to(ROOT)
            )
