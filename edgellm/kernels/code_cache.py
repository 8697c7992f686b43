"""Compiled kernels: machine code from LLVM's text, kept on disk for other processes."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import threading
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from edgellm.errors import BackendError, EdgeLLMError, FormatError
from edgellm.files.atomic import write_file
from edgellm.files.locations import cache_folder
from edgellm.files.own_file import make_own_folder, read_own_file
from edgellm.kernels.catalog import emitted, function_name
from edgellm.kernels.codegen.isa import Isa

_MAGIC = b"edgellm kernel 1\n"
_DIGEST = hashlib.sha256
_HEAD_BYTES = len(_MAGIC) + _DIGEST().digest_size

MAX_BYTES = 64 << 20
"""Bytes of a file; kernels have up to 0.3 MB."""


class CodeCache:
    """Machine code for one instruction set, in memory and on disk.

    Args:
        isa: the instructions that the code may use.
        folder: where compiled code is kept; None keeps none.

    Attributes:
        compiled: kernels that were compiled here.
        loaded: kernels that were found on disk.
    """

    def __init__(self, isa: Isa, *, folder: Path | None) -> None:
        import llvmlite.binding as llvm

        self.isa = isa
        self.folder = folder
        self.compiled: int = 0
        self.loaded: int = 0
        self._lock = threading.Lock()
        self._warned = False
        self._addresses: dict[str, int] = {}
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        self._machine = target_machine(isa)
        module = llvm.parse_assembly(f'target triple = "{isa.triple}"')
        self._compiler = llvm.create_mcjit_compiler(module, target_machine(isa))
        # Never freed: a worker thread may stand in its code until the process ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._compiler))

    def kernel(self, kernel: str, *arguments: object) -> int:
        """Return the address of a kernel of the catalog, made for some arguments.

        It is compiled if it never was.

        Raises:
            BackendError: LLVM refuses it.
        """
        name = function_name(kernel, *arguments)
        with self._lock:
            if name not in self._addresses:
                emit = partial(emitted, kernel, self.isa, *arguments)
                self._addresses[name] = self._load(name, emit)
            return self._addresses[name]

    def names(self) -> dict[int, str]:
        """Return the names of the kernels that were asked for, by address."""
        with self._lock:
            return {address: name for name, address in self._addresses.items()}

    def _load(self, name: str, emit: Callable[[], str]) -> int:
        import llvmlite.binding as llvm

        code = self._read(name)
        if code is None:
            code = compiled(emit(), self._machine)
            self.compiled += 1
            self._write(name, code)
        else:
            self.loaded += 1
        self._compiler.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._compiler.finalize_object()
        address = int(self._compiler.get_function_address(name))
        if not address:
            raise BackendError(f"the kernel {name} could not be loaded")
        return address

    def _file(self, name: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / f"{name}-{self.isa.name}-{fingerprint()}.bin"

    def _read(self, name: str) -> bytes | None:
        """Return the code on disk, unless there is none, it is damaged, or others may write it."""
        file = self._file(name)
        if file is None:
            return None
        try:
            stored = read_own_file(file, MAX_BYTES)
        except FormatError as error:
            self._warn(error)
            return None
        if stored is None:
            return None
        code = stored[_HEAD_BYTES:]
        if stored[:_HEAD_BYTES] != _head(name, code):
            return None
        return code

    def _write(self, name: str, code: bytes) -> None:
        """Keep code for the next process; a full or read-only disk only costs compiling again."""
        file = self._file(name)
        if file is None:
            return
        with contextlib.suppress(OSError, EdgeLLMError):
            make_own_folder(file.parent, "*.bin")
            write_file(file, [_head(name, code), code], private=True, durable=False)

    def _warn(self, error: FormatError) -> None:
        """Say once why code is not taken from the disk."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"compiled kernels are not loaded, since {error}: compiling them again",
                RuntimeWarning,
                stacklevel=2,
            )


def _head(name: str, code: bytes) -> bytes:
    """Return what comes before the code in its file; it holds for one kernel alone."""
    return _MAGIC + _DIGEST(name.encode() + code).digest()


def target_machine(isa: Isa) -> Any:
    """Return LLVM's code generator for an instruction set, whatever processor this is."""
    import llvmlite.binding as llvm

    target = llvm.Target.from_triple(isa.triple)
    processor = "generic"
    if isa.machine == "x86_64":
        processor = "x86-64"
    return target.create_target_machine(
        cpu=processor,
        features=",".join(f"+{feature}" for feature in isa.features),
        opt=2,
        reloc="default",
        codemodel="jitdefault",
        jit=True,
    )


def compiled(text: str, machine: Any) -> bytes:
    """Return the object file of an LLVM module.

    Raises:
        BackendError: LLVM refuses the module.
    """
    import llvmlite.binding as llvm

    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise BackendError(f"LLVM refused a kernel: {error}") from error
    # The emitters unroll and vectorize by hand.
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = False
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_interleaving = False
    builder = llvm.create_pass_builder(machine, options)
    passes = llvm.create_new_module_pass_manager()
    passes.add_simplify_cfg_pass()
    passes.add_instruction_combine_pass()
    passes.run(module, builder)
    return bytes(machine.emit_object(module))


def default_folder() -> Path:
    """Return the folder where compiled kernels are kept."""
    return cache_folder() / "kernels"


def function(address: int, *arguments: type) -> Callable[..., None]:
    """Return a native function without a result; the interpreter's lock is free while it runs."""
    return ctypes.CFUNCTYPE(None, *arguments)(address)


@cache
def fingerprint(folder: Path = Path(__file__).parent) -> str:
    """Return a digest of what code depends on besides its name: the emitters and the compiler.

    Args:
        folder: where the emitters are, in folders below it too.
    """
    import llvmlite

    # contents and not a version: whoever edits an emitter gets its new code
    digest = _DIGEST(str(llvmlite.__version__).encode())
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
