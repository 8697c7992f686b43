"""What this machine is and has: its chip, its memory, and the type that arithmetic runs in."""

from __future__ import annotations

import os
import platform
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from edgellm.errors import BackendError


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: what the machine has, what is free for us now, and what the GPU may use of it (None: the same memory)."""

    total: int
    available: int
    gpu_limit: int | None = None


def has_gpu() -> bool:
    """Whether MLX computes on a GPU here (Metal or CUDA)."""
    return bool(mx.default_device().type == mx.DeviceType.gpu)


def backend_name() -> str:
    """``metal``, ``cuda`` or ``cpu``: what MLX computes on."""
    if not has_gpu():
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def compute_dtype(stored: mx.Dtype) -> mx.Dtype:
    """The type of activations: the folder's own on a GPU; float32 on a CPU, where 16 bits are up to 40 times slower."""
    return stored if has_gpu() else mx.float32


def chip_name() -> str:
    """The processor's name as the system tells it."""
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


def core_count() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_memory() -> Memory:
    """The machine's memory. A container's or control group's limit counts as the machine's size.

    Raises:
        BackendError: the system does not tell.
    """
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError) as error:
        raise BackendError(
            "this system does not tell how much memory it has", hint="pass --memory SIZE"
        ) from error
    if sys.platform == "darwin":
        info = mx.device_info() if has_gpu() else {}
        limit = info.get("max_recommended_working_set_size")
        import psutil

        return Memory(
            total, psutil.virtual_memory().available, limit if isinstance(limit, int) else None
        )
    limit, used = _group_limit()
    available = _meminfo("MemAvailable") or total
    if limit is not None and limit < total:
        total, available = limit, min(available, max(0, limit - used))
    return Memory(total, available)


def process_memory() -> int:
    """Bytes that this process holds now: resident on Linux, the footprint (Metal's included) on macOS."""
    if sys.platform == "darwin":
        return _footprint()[0]
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_process_memory() -> int:
    """The most bytes that this process has held."""
    if sys.platform == "darwin":
        return _footprint()[1]
    for line in Path("/proc/self/status").read_text().splitlines():
        # ru_maxrss would count what the process that started this one held then
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _meminfo(name: str) -> int | None:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _group_limit() -> tuple[int | None, int]:
    """The tightest memory limit of the control groups that this process is in, and what is used of it."""
    tightest: tuple[int | None, int] = (None, 0)
    for line in (
        Path("/proc/self/cgroup").read_text().splitlines()
        if Path("/proc/self/cgroup").exists()
        else ()
    ):
        number, controllers, group = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        second = number == "0"
        root = Path("/sys/fs/cgroup") if second else Path("/sys/fs/cgroup/memory")
        limit_name, used_name = (
            ("memory.max", "memory.current")
            if second
            else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        folder = root / group.lstrip("/")
        for place in (folder, *folder.parents):
            limit, used = _number(place / limit_name), _number(place / used_name)
            if limit is not None and (tightest[0] is None or limit < tightest[0]):
                tightest = (limit, used or 0)
            if place == root:
                break
    return tightest


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _footprint() -> tuple[int, int]:
    """``phys_footprint`` now and at most, from ``proc_pid_rusage`` (flavour 4, rusage_info_v4)."""
    import ctypes

    library = ctypes.CDLL("/usr/lib/libproc.dylib")
    words = (ctypes.c_uint64 * 64)()
    if library.proc_pid_rusage(os.getpid(), 4, ctypes.byref(words)) != 0:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak, peak
    # 16 bytes of uuid, then 64-bit fields: user, system, pkg_idle_wkups, interrupt_wkups, pageins,
    # wired, resident, phys_footprint, ...; lifetime_max_phys_footprint is the 29th of them
    return int(words[2 + 7]), int(words[2 + 28])
