"""This machine: its chip, its cores, its memory, and the type that arithmetic runs in."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from edgellm.errors import BackendError

CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the machine's memory.

    Attributes:
        total: what the machine has, or what a control group leaves it.
        available: free for this process now.
        gpu_limit: of it for the GPU; None where the system names no such limit.
    """

    total: int
    available: int
    gpu_limit: int | None = None


def describe_load() -> str:
    """Return what else keeps the processor busy, as words; empty where that is little.

    Of the load of the last minute (processes that run or wait to) one is our own.
    """
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    if load < max(1.5, cores / 2):
        return ""
    return f"the machine was busy (a load of {load:.1f} on {cores} cores)"


def has_gpu() -> bool:
    """Whether MLX computes on a GPU here (Metal or CUDA)."""
    return bool(mx.default_device().type == mx.DeviceType.gpu)


def backend_name() -> str:
    """Return ``metal``, ``cuda`` or ``cpu``: what MLX computes on."""
    if not has_gpu():
        return "cpu"
    if mx.metal.is_available():
        return "metal"
    return "cuda"


def compute_dtype(stored: mx.Dtype) -> mx.Dtype:
    """Return the type of activations for weights that are stored in ``stored``."""
    if has_gpu():
        return stored
    # MLX computes 16-bit types on a CPU up to 40 times slower.
    return mx.float32


def chip_name() -> str:
    """Return the name of what MLX computes on: the GPU's where there is one, else the CPU's."""
    if has_gpu():
        name = mx.device_info().get("device_name")
        if isinstance(name, str) and name:
            return name
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def system_name() -> str:
    """Return the operating system and its version; no name of this machine."""
    mac_version = platform.mac_ver()[0]
    return f"macOS {mac_version}" if mac_version else f"{platform.system()} {_kernel_version()}"


def _kernel_version() -> str:
    """Return the numbers of a kernel's release; what its builder put behind them is his own."""
    return platform.release().partition("-")[0]


def core_count() -> int:
    """Return the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_memory() -> Memory:
    """Return the machine's memory; a container's or control group's limit counts as its size.

    Raises:
        BackendError: the system does not tell.
    """
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError) as error:
        raise BackendError(
            "this system does not say how much memory it has", hint="pass --memory SIZE"
        ) from error
    if sys.platform == "darwin":
        import psutil

        info = mx.device_info() if has_gpu() else {}
        gpu_limit = info.get("max_recommended_working_set_size")
        if not isinstance(gpu_limit, int):
            gpu_limit = None
        return Memory(total, psutil.virtual_memory().available, gpu_limit)
    available = _meminfo("MemAvailable") or total
    limit, used = _cgroup_limit()
    if limit is not None and limit < total:
        return Memory(limit, min(available, max(0, limit - used)))
    return Memory(total, available)


def process_memory() -> int:
    """Return bytes that this process holds: resident on Linux, the footprint on macOS.

    The footprint counts Metal's memory too.
    """
    if sys.platform == "darwin":
        return _footprint()[0]
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return resident_pages * os.sysconf("SC_PAGE_SIZE")


def peak_process_memory() -> int:
    """Return the most bytes that this process has held."""
    if sys.platform == "darwin":
        return _footprint()[1]
    # ru_maxrss would count what the process that started this one held then.
    peak = _kilobytes(Path("/proc/self/status"), "VmHWM")
    return peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def release_free_memory() -> None:
    """Give back to the system what the allocator keeps for later; only glibc's keeps much."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _meminfo(name: str) -> int | None:
    return _kilobytes(Path("/proc/meminfo"), name)


def _kilobytes(path: Path, name: str) -> int | None:
    """Return the bytes of a line such as ``MemAvailable:  1234 kB``."""
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup_limit() -> tuple[int | None, int]:
    """Return the tightest memory limit of this process's control groups, and bytes used of it."""
    tightest: int | None = None
    used = 0
    for limit_file, used_file in _cgroup_files():
        limit = _number(limit_file)
        if limit is not None and (tightest is None or limit < tightest):
            tightest = limit
            used = _number(used_file) or 0
    return tightest, used


def _cgroup_files() -> Iterator[tuple[Path, Path]]:
    """Yield the files of limit and use, for each group that holds this process and its parents."""
    groups = Path("/proc/self/cgroup")
    if not groups.exists():
        return
    # Lines such as "0::/user.slice" (version 2) or "9:cpu,memory:/docker/abc" (version 1).
    for line in groups.read_text().splitlines():
        number, controllers, group = line.split(":", 2)
        if number == "0":
            root, limit_name, used_name = CGROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root = CGROUPS / "memory"
            limit_name, used_name = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = root / group.lstrip("/")
        for path in (folder, *folder.parents):
            yield path / limit_name, path / used_name
            if path == root:
                break


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None


def _footprint() -> tuple[int, int]:
    """Return ``phys_footprint`` now and at most, from macOS's ``proc_pid_rusage``."""
    import ctypes

    library = ctypes.CDLL("/usr/lib/libproc.dylib")
    words = (ctypes.c_uint64 * 64)()
    # Flavour 4 is rusage_info_v4 (sys/resource.h).
    if library.proc_pid_rusage(os.getpid(), 4, ctypes.byref(words)) != 0:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak, peak
    # 16 bytes of uuid, then 64-bit fields: user, system, pkg_idle_wkups, interrupt_wkups, pageins,
    # wired, resident, phys_footprint, ...; lifetime_max_phys_footprint is the 29th of them
    return int(words[2 + 7]), int(words[2 + 28])
