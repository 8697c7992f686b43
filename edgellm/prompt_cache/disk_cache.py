"""KV caches on disk: what a prompt has cost once need not be computed again by another process.

A sequence is one safetensors file: its tokens, and each layer's keys and values as the cache keeps
them. Files lie in a folder named by the model and by all settings that change the numbers. A file
appears under its name only when it is whole, and its checksum is verified before it is used; one
that is damaged or foreign is left aside with a warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.device import machine as device
from edgellm.errors import EdgeLLMError
from edgellm.files.locations import cache_folder
from edgellm.kv_cache.cache import Cache, KVCache
from edgellm.prompt_cache.sequence_file import (
    FORMAT,
    VERSION,
    Found,
    fill,
    goes_on,
    layers_of,
    match_prefix,
    tensors_of,
    write_sequence,
)
from edgellm.runtime.loader import arithmetic_of, kv_format_of
from edgellm.settings import PROMPT_CACHE_BYTES, PROMPT_CACHE_SHARE, LoadSettings

SUFFIX = ".safetensors"

WORTH_KEEPING = 64
"""Tokens; fewer are computed about as fast as a file is read."""

ABANDONED_SECONDS = 3600
"""After which a file under a temporary name belongs to nobody."""

MAX_FILES = 4096
"""Files of one model that are looked through."""

_numbers = count()


class PromptCache:
    """The sequences of one model and its settings.

    Args:
        folder: of all models' sequences; it need not exist.
        identity: tells the model and its settings, and is asked for once, when something is looked
            for or kept.
        limit: bytes that all sequences may take; None: ``PROMPT_CACHE_BYTES``, or less where the
            disk has little room.
    """

    def __init__(
        self, folder: Path, identity: Callable[[], str], *, limit: int | None = None
    ) -> None:
        self.folder, self._identity, self._limit = folder, identity, limit
        self._place: Path | None = None

    @property
    def place(self) -> Path:
        """Where this model's sequences lie."""
        if self._place is None:
            key = hashlib.sha256(f"{FORMAT} {VERSION} {self._identity()}".encode()).hexdigest()
            self._place = self.folder / key[:32]
        return self._place

    def find(self, tokens: Sequence[int], caches: Sequence[Cache]) -> Found | None:
        """The file whose sequence has most in common with ``tokens``, of those that the caches can go on from.

        Only headers and tokens are read.
        """
        best: Found | None = None
        for path in sorted(self.place.glob(f"*{SUFFIX}"))[:MAX_FILES]:
            try:
                found = match_prefix(path, self.place.name, tokens)
                if found.common < WORTH_KEEPING or (
                    best is not None and found.common <= best.common
                ):
                    continue
                if all(
                    goes_on(cache, base, found.common)
                    for cache, base, _ in layers_of(found, caches)
                ):
                    best = found
            except (EdgeLLMError, OSError) as error:
                _ignore(path, error)
        return best

    def load(self, found: Found, caches: Sequence[Cache]) -> int:
        """Fill the caches with what a file and a prompt have in common; returns how many tokens that is.

        Where it is 0, the caches may hold anything. A layer is read at a time, so that little
        memory is needed besides theirs.
        """
        try:
            fill(found, layers_of(found, caches), found.common)
            with contextlib.suppress(OSError):
                os.utime(found.path)  # the least recently used go first
        except (EdgeLLMError, OSError) as error:
            _ignore(found.path, error)
            return 0
        return found.common

    def save(self, tokens: Sequence[int], caches: Sequence[Cache]) -> None:
        """Keep the caches of a sequence; a disk that is full or read-only costs a warning."""
        kept = [cache for cache in caches if isinstance(cache, KVCache)]
        tensors = tensors_of(tokens, kept)
        size = sum(tensor.nbytes for tensor in tensors)
        try:
            self.place.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._make_room(size):
                return
            name = hashlib.sha256(np.array(tokens, np.int32).tobytes()).hexdigest()[:32]
            # two processes may keep the same sequence
            whole = self.place / f"{name}.{os.getpid()}.{next(_numbers)}.new"
            write_sequence(whole, tensors, kept, key=self.place.name)
            whole.replace(self.place / f"{name}{SUFFIX}")
        except (EdgeLLMError, OSError) as error:
            warnings.warn(f"the prompt's cache was not kept: {error}", RuntimeWarning, stacklevel=2)
            return
        if all(cache.window is None for cache in kept):
            self._drop_beginnings(tokens, but=name)

    def _make_room(self, size: int) -> bool:
        """Drop abandoned files, and the least recently used sequences, until ``size`` bytes more are within the limit."""
        files = []
        for path in self.folder.glob("*/*"):
            with contextlib.suppress(OSError):  # another process may have dropped it
                status = path.stat()
                if path.suffix != SUFFIX and time.time() - status.st_mtime > ABANDONED_SECONDS:
                    path.unlink()
                else:
                    files.append((status.st_mtime_ns, status.st_size, path))
        held = sum(nbytes for _, nbytes, _ in files)
        limit = self._limit
        if limit is None:
            limit = min(
                PROMPT_CACHE_BYTES,
                int(PROMPT_CACHE_SHARE * (shutil.disk_usage(self.folder).free + held)),
            )
        if size > limit:
            return False
        for _, nbytes, path in sorted(files):
            if held + size <= limit:
                break
            if path.suffix == SUFFIX:
                path.unlink(missing_ok=True)
                held -= nbytes
        return held + size <= limit

    def _drop_beginnings(self, tokens: Sequence[int], *, but: str) -> None:
        """Drop sequences that one just kept begins with: it serves all that they do."""
        for path in self.place.glob(f"*{SUFFIX}"):
            with contextlib.suppress(EdgeLLMError, OSError):
                if path.stem != but:
                    found = match_prefix(path, self.place.name, tokens)
                    if found.common == found.tensors["tokens"].shape[0]:
                        path.unlink()


def prompt_cache_for(checkpoint: Checkpoint, settings: LoadSettings) -> PromptCache | None:
    """The sequences that a model loaded with these settings may use; None where the settings want none."""
    if not settings.prompt_cache:
        return None
    folder = default_folder() if settings.prompt_cache is True else Path(settings.prompt_cache)

    def identity() -> str:
        arithmetic, kept = (
            arithmetic_of(checkpoint, settings),
            kv_format_of(checkpoint, settings.kv_bits),
        )
        kernels = arithmetic.kernels
        how = f"{kernels.isa.name} {kernels.activations}" if kernels else device.backend_name()
        return f"{fingerprint(checkpoint)} {kept.dtype} {kept.bits} {settings.context_window} {arithmetic.dtype} {how}"

    return PromptCache(folder, identity)


def default_folder() -> Path:
    """Where sequences are kept if nothing else is said."""
    return cache_folder() / "prompts"


def kv_bytes_per_token(folder: Path) -> int:
    """Bytes that the sequences in a folder take."""
    return sum(path.stat().st_size for path in folder.glob("*/*") if path.is_file())


def _ignore(path: Path, error: Exception) -> None:
    if not isinstance(error, FileNotFoundError):  # another process dropped it
        warnings.warn(f"the kept cache {path} is ignored: {error}", RuntimeWarning, stacklevel=3)
