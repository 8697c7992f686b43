"""The kernels of this machine, and the engines that a process shares."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgellm.errors import BackendError
from edgellm.kernels.code_cache import CodeCache, default_folder
from edgellm.kernels.codegen.isa import Isa, host_isas, isa_named
from edgellm.kernels.kernel_engine import Activations, KernelEngine

_lock = threading.Lock()
_engines: dict[tuple[str, int, str], KernelEngine] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The kernels of this machine, as ``edgellm doctor`` shows them.

    Attributes:
        isa: the instruction set that is used; None where there are no kernels.
        others: what the processor could run besides.
        reason: why there are none.
        int8: whether products can round activations to int8.
        folder: where compiled kernels are kept.
        cached_files: in that folder, for any instruction set and version.
        cached_bytes: bytes of those files.
    """

    isa: str | None
    others: tuple[str, ...]
    reason: str | None
    int8: bool
    folder: Path
    cached_files: int
    cached_bytes: int


@cache
def unavailable() -> str | None:
    """Return why there are no kernels here; None if there are."""
    if importlib.util.find_spec("llvmlite") is None:
        return "llvmlite is not installed"
    try:
        host_isas()
    except (BackendError, OSError) as error:
        return str(error)
    return None


def kernel_engine(
    *, threads: int, activations: Activations = "int8", isa: str | None = None
) -> KernelEngine:
    """Return the engine of this process for these settings.

    Args:
        threads: how many work on a call.
        activations: whether products may round activations.
        isa: an instruction set by name; None takes the best.

    Raises:
        BackendError: there are no kernels here.
        ConfigError: the processor does not have the instruction set.
    """
    reason = unavailable()
    if reason is not None:
        raise BackendError(
            f"there are no CPU kernels: {reason}",
            hint="install them, in edgellm's checkout: pip install '.[cpu]'",
        )
    chosen = host_isas()[0]  # the best
    if isa is not None:
        chosen = isa_named(isa)
    key = (chosen.name, threads, activations)
    with _lock:
        if key not in _engines:
            code = code_cache(chosen)
            _engines[key] = KernelEngine(code, threads=threads, activations=activations)
        return _engines[key]


def describe() -> Description:
    """Describe the kernels of this machine."""
    folder = default_folder()
    sizes = [path.lstat().st_size for path in folder.glob("*.bin")]
    reason = unavailable()
    names: list[str] = []
    int8 = False
    if reason is None:
        isas = host_isas()
        names = [isa.name for isa in isas]
        int8 = isas[0].dot is not None
    return Description(
        isa=next(iter(names), None),
        others=tuple(names[1:]),
        reason=reason,
        int8=int8,
        folder=folder,
        cached_files=len(sizes),
        cached_bytes=sum(sizes),
    )


@cache
def code_cache(isa: Isa) -> CodeCache:
    """Return the compiled kernels of an instruction set; a process has one of each."""
    return CodeCache(isa, folder=default_folder())
