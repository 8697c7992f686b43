"""Processes that Linux holds to a number of bytes, by control groups."""

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
    """Yield the command that runs ``command`` within ``limit`` bytes, its page cache included.

    None: no limit.

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


def _make_group(limit: int) -> Path:
    """Make a control group with a limit in the first place that lets us. Raises ConfigError."""
    failures = []
    for version, parent in _parents():
        _remove_stale(parent)
        group = parent / f"{NAME}-{os.getpid()}-{time.monotonic_ns()}"
        try:
            group.mkdir()
        except OSError as error:
            failures.append(f"{group}: {error.strerror}")
            continue
        try:
            (group / LIMITS[version]).write_text(str(limit))
        except OSError as error:
            failures.append(f"{group / LIMITS[version]}: {error.strerror}")
            group.rmdir()
            continue
        with suppress(OSError):  # where there is no swap there is nothing to forbid
            # version 1 limits memory and swap together, version 2 swap alone
            swap_limit = limit if version == 0 else 0
            (group / SWAPS[version]).write_text(str(swap_limit))
        return group
    reason = "; ".join(failures) or "there are no control groups for memory"
    raise ConfigError(
        f"memory cannot be capped here: {reason}",
        hint="run it as root on Linux, or leave the cap out",
    )


def _remove_stale(parent: Path) -> None:
    """Remove the empty groups of runs that were ended from outside."""
    for group in parent.glob(f"{NAME}-*-*"):
        if not Path(f"/proc/{group.name.split('-')[1]}").exists():
            with suppress(OSError):
                group.rmdir()


def _parents() -> Iterator[tuple[int, Path]]:
    """Yield the groups that may have a group of ours inside, each with the index of its version.

    They are our own and those above it, since version 2 has processes in leaves only.
    """
    own = Path("/proc/self/cgroup")
    if not own.exists():
        return
    for line in own.read_text().splitlines():
        number, controllers, name = line.split(":", 2)
        path = name.lstrip("/")
        if "memory" in controllers.split(","):
            yield 0, ROOT / "memory" / path
        elif number == "0":
            folder = ROOT / path
            yield from (
                (1, parent) for parent in (folder, *folder.parents) if parent.is_relative_to(ROOT)
            )
