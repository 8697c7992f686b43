"""A file of noise by which a disk is measured that holds no model."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgellm.console.units import size
from edgellm.errors import ReadError

SAMPLE_BYTES = 256 << 20
"""Bytes that are written and read back to measure a disk's speed."""

MIN_FREE_BYTES = 1 << 30
"""Bytes that must be free on a disk before a sample is written to it."""

F_NOCACHE = 48
"""macOS's fcntl command that keeps a file out of the page cache."""


@contextmanager
def disk_sample(folder: Path) -> Iterator[list[Path]]:
    """Write a file of noise, which is deleted again. Raises ReadError where none can be written."""
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise ReadError(
            f"{folder} has {size(free)} free; its disk is measured with {size(MIN_FREE_BYTES)}",
            hint="free some space, or name a folder on another disk",
        )
    noise = os.urandom(1 << 20)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".edgellm-doctor-") as file:
            if sys.platform == "darwin":
                import fcntl

                # what is written must not be read back from memory
                fcntl.fcntl(file.fileno(), F_NOCACHE, 1)
            for _ in range(SAMPLE_BYTES // len(noise)):
                file.write(noise)
            file.flush()
            os.fsync(file.fileno())
            yield [Path(file.name)]
    except OSError as error:
        raise ReadError(
            f"{folder} cannot be written to, so its disk was not measured: {error.strerror}",
            hint="name a folder that you may write to",
        ) from error
