"""Compiled kernels, which processes with caches of their own and later runs find again.

A file's name holds a digest of the emitters and LLVM's version: each is of these sources.
"""

import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path


def kernels_in(caches):
    """Where kernels lie below a folder of caches."""
    return Path(caches) / "edgellm" / "kernels"


@contextmanager
def shared_kernels(environment):
    """A process with this environment finds the kernels of this one, which finds its own later."""
    here, there = (os.environ.get("XDG_CACHE_HOME"), environment.get("XDG_CACHE_HOME"))
    if not here or not there or here == there:
        yield
        return
    link_kernels(kernels_in(here), kernels_in(there))
    yield
    link_kernels(kernels_in(there), kernels_in(here))


def link_kernels(source, target):
    """Show the files of one folder in another, for the owner alone."""
    from edgellm.files.locations import make_private_folder

    if not source.is_dir():
        return
    make_private_folder(target)
    for file in source.glob("*.bin"):
        with suppress(FileExistsError):
            os.link(file, target / file.name)


def copy_kernels(source, target):
    """Make a folder hold those files of another that are of these sources, and no others."""
    from edgellm.files.locations import make_private_folder
    from edgellm.kernels.code_cache import fingerprint

    shutil.rmtree(target, ignore_errors=True)
    make_private_folder(target)
    for file in source.glob(f"*-{fingerprint()}.bin"):
        with suppress(OSError):
            shutil.copy(file, target)
