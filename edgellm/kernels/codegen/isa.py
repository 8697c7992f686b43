"""Instruction sets: their features and widths, and those that this processor has."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from edgellm.errors import BackendError, ConfigError

_ARCH_PRCTL = 158
_REQUEST_PERMISSION = 0x1023
_TILE_DATA = 18
"""The system call, its request and its argument by which Linux lets a process use AMX tiles."""


@dataclass(frozen=True, slots=True)
class Isa:
    """An instruction set that kernels are made for.

    Attributes:
        name: as ``edgellm doctor`` shows it.
        machine: the processor family, as in an LLVM triple.
        features: LLVM's names of what the code may use.
        lanes: float32 numbers in a vector.
        dot: how four products of bytes are added to a 32-bit lane; None: only the float path.
        tiles: whether tiles of 16 x 32 bfloat16 numbers or 16 x 64 bytes are multiplied at once
            (AMX).
        pairs: whether two products of bfloat16 numbers are added to a lane at once.
        half: whether float16 is converted by an instruction.
        registers: vector registers, which bound the blocks of a matrix product.
    """

    name: str
    machine: str
    features: tuple[str, ...]
    lanes: int
    dot: str | None
    tiles: bool = False
    pairs: bool = False
    half: bool = True
    registers: int = 16

    @property
    def block(self) -> int:
        """Quantization groups that a product of few tokens sums side by side."""
        return max(self.lanes // 2, 4)

    @property
    def triple(self) -> str:
        """The LLVM triple."""
        systems = {"Darwin": "apple-darwin", "Windows": "pc-windows-msvc"}
        system = systems.get(platform.system(), "unknown-linux-gnu")
        machine = self.machine
        if machine == "aarch64" and platform.system() == "Darwin":
            machine = "arm64"  # Apple's word for it
        return f"{machine}-{system}"


_AVX2 = ("avx2", "fma", "f16c", "bmi2", "popcnt", "sse4.2", "lzcnt")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd", "avx512vnni")
_AMX = (*_AVX512, "avx512bf16", "amx-tile", "amx-bf16", "amx-int8")

ISAS: Mapping[str, Isa] = {
    isa.name: isa
    for isa in (
        # AMX multiplies tiles; vpdpbusd adds four products of bytes to a lane (VNNI)
        Isa("amx", "x86_64", _AMX, 16, "vpdpbusd", tiles=True, registers=32),
        # vdpbf16ps adds two products of bfloat16 numbers
        Isa(
            "avx512-bf16",
            "x86_64",
            (*_AVX512, "avx512bf16"),
            16,
            "vpdpbusd",
            pairs=True,
            registers=32,
        ),
        Isa("avx512-vnni", "x86_64", _AVX512, 16, "vpdpbusd", registers=32),
        Isa("avx-vnni", "x86_64", (*_AVX2, "avxvnni"), 8, "vpdpbusd"),
        # without VNNI the same takes three instructions: see dot.py
        Isa("avx2", "x86_64", _AVX2, 8, "pmaddubsw"),
        Isa("arm64-dot", "aarch64", ("neon", "dotprod"), 4, "sdot", registers=32),
        # what every processor of the family has
        Isa("x86-64", "x86_64", ("sse2",), 4, None, half=False),
        Isa("arm64", "aarch64", ("neon",), 4, None, registers=32),
    )
}
"""Fastest first within a processor family."""


@cache
def host_features() -> frozenset[str]:
    """Return LLVM's names of what this processor offers and its operating system saves."""
    import llvmlite.binding as llvm

    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


def host_machine() -> str:
    """Return this processor's family, as in an LLVM triple."""
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


@cache
def tiles_allowed() -> bool:
    """Ask Linux for AMX tiles; return whether this process and its later threads have them."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0)


def host_isas() -> list[Isa]:
    """Return the instruction sets that this processor has, best first.

    Raises:
        BackendError: there is none.
    """
    usable = [
        isa
        for isa in ISAS.values()
        if isa.machine == host_machine() and host_features() >= set(isa.features)
    ]
    usable = [isa for isa in usable if not isa.tiles or tiles_allowed()]
    if not usable:
        raise BackendError(f"there are no kernels for {platform.machine()} processors")
    return usable


def isa_named(name: str) -> Isa:
    """Return an instruction set that this processor has.

    Raises:
        ConfigError: no such name, or this processor has it not.
    """
    for isa in host_isas():
        if isa.name == name:
            return isa
    known = ", ".join(isa.name for isa in host_isas())
    raise ConfigError(f"this processor does not run {name!r}", hint=f"it runs {known}")
