"""Compiled code: LLVM text becomes machine code once and is kept on disk; the next process loads it."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from edgellm.errors import BackendError
from edgellm.files.locations import cache_folder
from edgellm.kernels.catalog import emitted, function_name
from edgellm.kernels.codegen.isa import Isa

_MAGIC = b"edgellm kernel 1\n"
_DIGEST = hashlib.sha256


class Objects:
    """Machine code for one instruction set.

    Args:
        isa: what the code may use.
        folder: where compiled code is kept; None keeps none.
    """

    def __init__(self, isa: Isa, *, folder: Path | None) -> None:
        import llvmlite.binding as llvm

        self.isa, self.folder = isa, folder
        self.compiled, self.loaded = 0, 0
        self._lock = threading.Lock()
        self._addresses: dict[str, int] = {}
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        self._machine = target_machine(isa)
        module = llvm.parse_assembly(f'target triple = "{isa.triple}"')
        self._engine = llvm.create_mcjit_compiler(module, target_machine(isa))
        # a worker may stand in its code until the process ends
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._engine))

    def kernel(self, kernel: str, *arguments: object) -> int:
        """The address of a kernel of the catalog, made for some arguments; compiled if it never was.

        Raises:
            BackendError: LLVM refuses it.
        """
        name = function_name(kernel, *arguments)
        with self._lock:
            found = self._addresses.get(name)
            if found is None:
                found = self._addresses[name] = self._loaded(
                    name, lambda: emitted(kernel, self.isa, *arguments)
                )
            return found

    def _loaded(self, name: str, emit: Callable[[], str]) -> int:
        import llvmlite.binding as llvm

        code = self._read(name)
        if code is None:
            code = compiled(emit(), self._machine)
            self.compiled += 1
            self._write(name, code)
        else:
            self.loaded += 1
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        address = int(self._engine.get_function_address(name))
        if not address:
            raise BackendError(f"the kernel {name} could not be loaded")
        return address

    def _path(self, name: str) -> Path | None:
        return (
            None
            if self.folder is None
            else self.folder / f"{name}-{self.isa.name}-{_fingerprint()}.bin"
        )

    def _read(self, name: str) -> bytes | None:
        """The code on disk, unless there is none or it is damaged."""
        path = self._path(name)
        if path is None:
            return None
        try:
            kept = path.read_bytes()
        except OSError:
            return None
        start = len(_MAGIC) + _DIGEST().digest_size
        code = kept[start:]
        return code if kept[:start] == _MAGIC + _DIGEST(code).digest() else None

    def _write(self, name: str, code: bytes) -> None:
        """Keep code for the next process; a disk that is full or read-only only costs compiling again."""
        path = self._path(name)
        if path is None:
            return
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, temporary = tempfile.mkstemp(dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_MAGIC + _DIGEST(code).digest() + code)
                Path(temporary).replace(path)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise


def target_machine(isa: Isa) -> Any:
    """LLVM's code generator for an instruction set, whatever processor this is."""
    import llvmlite.binding as llvm

    target = llvm.Target.from_triple(isa.triple)
    features = ",".join(f"+{feature}" for feature in isa.features)
    return target.create_target_machine(
        cpu="x86-64" if isa.machine == "x86_64" else "generic",
        features=features,
        opt=2,
        reloc="default",
        codemodel="jitdefault",
        jit=True,
    )


def compiled(text: str, machine: Any) -> bytes:
    """The object file of an LLVM module.

    Raises:
        BackendError: LLVM refuses the module.
    """
    import llvmlite.binding as llvm

    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise BackendError(f"LLVM refused a kernel: {error}") from error
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = (
        options.loop_interleaving
    ) = False
    builder = llvm.create_pass_builder(machine, options)
    passes = llvm.create_new_module_pass_manager()
    passes.add_simplify_cfg_pass()
    passes.add_instruction_combine_pass()
    passes.run(module, builder)
    return bytes(machine.emit_object(module))


def default_folder() -> Path:
    """Where compiled kernels are kept."""
    return cache_folder() / "kernels"


def function(address: int, *arguments: type) -> Callable[..., None]:
    """A native function that returns nothing; the interpreter's lock is free while it runs."""
    return ctypes.CFUNCTYPE(None, *arguments)(address)


@cache
def _fingerprint() -> str:
    """What the code depends on besides its name: the emitters' source and the compiler."""
    import llvmlite

    digest = _DIGEST(str(llvmlite.__version__).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
