"""What this machine's kernels are, and the engine that a process shares."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgellm.errors import BackendError
from edgellm.kernels.code_cache import Objects, default_folder
from edgellm.kernels.codegen.isa import Isa, host_isas, isa_named
from edgellm.kernels.engine import Activations, Engine

_lock = threading.Lock()
_engines: dict[tuple[str, int, str], Engine] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The kernels here.

    Attributes:
        isa: the instruction set that is used; None where there are no kernels.
        others: what the processor could run besides.
        reason: why there are none.
        int8: whether products can round activations to int8.
        folder: where compiled kernels are kept.
        kept: files in it, for any instruction set and version.
        kept_bytes: of those files.
    """

    isa: str | None
    others: tuple[str, ...]
    reason: str | None
    int8: bool
    folder: Path
    kept: int
    kept_bytes: int


@cache
def unavailable() -> str | None:
    """Why there are no kernels here; None if there are."""
    if importlib.util.find_spec("llvmlite") is None:
        return "llvmlite is not installed"
    try:
        host_isas()
    except (BackendError, OSError) as error:
        return str(error)
    return None


def available() -> bool:
    """Whether there are kernels here."""
    return unavailable() is None


def engine(*, threads: int, activations: Activations = "int8", isa: str | None = None) -> Engine:
    """The engine of this process for these settings.

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
            f"there are no CPU kernels: {reason}", hint="install them: pip install 'edgellm[cpu]'"
        )
    chosen = isa_named(isa) if isa else host_isas()[0]
    key = (chosen.name, threads, activations)
    with _lock:
        found = _engines.get(key)
        if found is None:
            found = _engines[key] = Engine(
                _objects(chosen), threads=threads, activations=activations
            )
        return found


def describe() -> Description:
    """What ``edgellm doctor`` shows."""
    reason = unavailable()
    isas = [] if reason else host_isas()
    folder = default_folder()
    files = [path.stat().st_size for path in folder.glob("*.bin")] if folder.is_dir() else []
    return Description(
        isa=isas[0].name if isas else None,
        others=tuple(isa.name for isa in isas[1:]),
        reason=reason,
        int8=bool(isas and isas[0].dot),
        folder=folder,
        kept=len(files),
        kept_bytes=sum(files),
    )


@cache
def _objects(isa: Isa) -> Objects:
    return Objects(isa, folder=default_folder())
