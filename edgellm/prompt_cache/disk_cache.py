"""Prompt cache on disk: the KV cache of a prompt, kept for the next process.

A sequence is one safetensors file: its tokens, and each layer's keys and values in their KV format.
Files lie in a folder named by the model and by all settings that change the numbers. A file appears
under its name only when it is whole, and its checksum is verified before it is used; one that is
damaged or foreign is left aside with a warning. ``owned_folder`` says which files may be deleted.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.device.machine import backend_name
from edgellm.errors import EdgeLLMError
from edgellm.files.given_path import given_path
from edgellm.files.locations import cache_folder
from edgellm.files.refusals import write_error
from edgellm.kv_cache.cache import Cache, KVCache
from edgellm.models.arithmetic import arithmetic_of, config_for, kv_format_of
from edgellm.prompt_cache.owned_folder import OwnedFolder, sequence_name
from edgellm.prompt_cache.sequence_file import (
    FORMAT,
    VERSION,
    PrefixMatch,
    fill_caches,
    match_layers,
    match_prefix,
    sequence_tensors,
    write_sequence,
)
from edgellm.settings import PROMPT_CACHE_BYTES, PROMPT_CACHE_SHARE, LoadSettings

MIN_TOKENS = 64
"""Tokens of the shortest sequence worth a file; fewer are computed about as fast as one is read."""

ABANDONED_SECONDS = 3600
"""Age from which a temporary file has lost its writer: none takes so long."""

MAX_FILES = 4096
"""Files of one model that are searched for a prefix."""


class HasFingerprint(Protocol):
    """An adapter, of which no more is asked here."""

    def fingerprint(self) -> str:
        """Return a digest that no other has. Raises ReadError."""


class PromptCache:
    """The sequences of one model and its settings.

    Args:
        folder: of all models' sequences, which may hold anything else; it need not exist.
        identity: tells the model and its settings; called once, when it is first needed.
        limit: bytes that all sequences may take; None: ``PROMPT_CACHE_BYTES``, or less where the
            disk has little room.

    Attributes:
        folder, limit: as above.
    """

    def __init__(
        self, folder: Path, identity: Callable[[], str], *, limit: int | None = None
    ) -> None:
        self.folder = folder
        self.limit = limit
        self._folder = OwnedFolder(folder)
        self._identity = identity
        self._key: str | None = None

    @property
    def key(self) -> str:
        """32 hexadecimal digits for the model, its settings and the version of the format."""
        if self._key is None:
            identity = f"{FORMAT} {VERSION} {self._identity()}"
            self._key = hashlib.sha256(identity.encode()).hexdigest()[:32]
        return self._key

    @property
    def nbytes(self) -> int:
        """Bytes of all files in the folder that are ours, of every model."""
        return sum(file.nbytes for file in self._folder.files())

    def find(self, tokens: Sequence[int], caches: Sequence[Cache]) -> PrefixMatch | None:
        """Return the file with the longest prefix in common with ``tokens`` that fits the caches.

        Reads only headers and tokens. None where fewer than ``MIN_TOKENS`` are in common.
        """
        best: PrefixMatch | None = None
        min_common = MIN_TOKENS
        for path in self._folder.sequences(self.key)[:MAX_FILES]:
            try:
                match = match_prefix(path, self.key, tokens)
                if match.common < min_common:
                    continue
                if all(layer.can_continue(match.common) for layer in match_layers(match, caches)):
                    best = match
                    min_common = match.common + 1
            except (EdgeLLMError, OSError) as error:
                _warn_ignored(path, error)
        return best

    def load(self, match: PrefixMatch, caches: Sequence[Cache]) -> int:
        """Fill the caches with what a file and a prompt have in common; return how many tokens.

        0 where the file is damaged: the caches may then hold anything. Reads a layer at a time, so
        that little memory is needed besides theirs.
        """
        try:
            fill_caches(match, match_layers(match, caches), match.common)
        except (EdgeLLMError, OSError) as error:
            _warn_ignored(match.path, error)
            return 0
        with suppress(OSError):
            os.utime(match.path)  # the least recently used are deleted first
        return match.common

    def save(self, tokens: Sequence[int], caches: Sequence[Cache]) -> None:
        """Keep the caches of a sequence; a disk that is full or read-only costs a warning."""
        kv_caches = [cache for cache in caches if isinstance(cache, KVCache)]
        tensors = sequence_tensors(tokens, kv_caches)
        digest = hashlib.sha256(np.array(tokens, np.int32).tobytes()).hexdigest()
        try:
            folder = self._folder.create(self.key)
            if not self._make_room(sum(tensor.nbytes for tensor in tensors)):
                return
            path = folder / sequence_name(digest)
            write_sequence(path, tensors, kv_caches, key=self.key)
        except (EdgeLLMError, OSError) as error:
            reason: Exception = error
            if isinstance(error, OSError) and error.errno is not None:
                reason = write_error(self._folder.path, error)
            warnings.warn(
                f"the prompt's cache was not kept: {reason}", RuntimeWarning, stacklevel=2
            )
            return
        # With a window a sequence serves only prompts that go on at its end, not its prefixes.
        if all(cache.window is None for cache in kv_caches):
            self._delete_prefixes(tokens, keep=path)

    def _make_room(self, size: int) -> bool:
        """Delete abandoned files, and old sequences until ``size`` more bytes are in the limit."""
        abandoned_ns = time.time_ns() - ABANDONED_SECONDS * 10**9
        sequences = []
        total = 0
        for file in self._folder.files():
            if file.is_temporary and file.modified_ns < abandoned_ns:
                self._folder.delete(file.path)
                continue
            total += file.nbytes
            if not file.is_temporary:
                sequences.append(file)
        limit = self.limit
        if limit is None:
            free = shutil.disk_usage(self._folder.path).free
            limit = min(PROMPT_CACHE_BYTES, int(PROMPT_CACHE_SHARE * (free + total)))
        if size > limit:
            return False
        for file in sorted(sequences, key=lambda file: file.modified_ns):
            if total + size <= limit:
                break
            self._folder.delete(file.path)
            total -= file.nbytes
        return total + size <= limit

    def _delete_prefixes(self, tokens: Sequence[int], *, keep: Path) -> None:
        """Delete sequences that ``tokens`` begin with: the one just kept serves all they did."""
        for path in self._folder.sequences(self.key):
            if path == keep:
                continue
            with suppress(EdgeLLMError, OSError):
                match = match_prefix(path, self.key, tokens)
                if match.common == match.length:
                    self._folder.delete(path)


def prompt_cache_for(
    checkpoint: Checkpoint,
    settings: LoadSettings,
    *,
    kv_bits: int | None,
    adapter: HasFingerprint | None = None,
) -> PromptCache | None:
    """Return the prompt cache of a model loaded with these settings; None where they want none.

    Args:
        checkpoint: the model.
        settings: as for ``load``.
        kv_bits: of the model's KV caches, as its plan has them.
        adapter: that runs beside the model's weights.

    Raises:
        ConfigError: the folder begins with the home of a user who does not exist.
    """
    if not settings.prompt_cache:
        return None

    def identity() -> str:
        arithmetic = arithmetic_of(checkpoint, settings)
        kv_format = kv_format_of(checkpoint, kv_bits)
        kernels = backend_name()
        if arithmetic.kernels:
            kernels = f"{arithmetic.kernels.isa.name} {arithmetic.kernels.activations}"
        # longrope turns keys otherwise where texts may be long
        scaling = config_for(checkpoint, settings).rope_scaling
        if scaling is not None and scaling.is_long:
            kernels += " long"
        if adapter is not None:
            kernels += f" {adapter.fingerprint()}"
        return (
            f"{fingerprint(checkpoint)} {kv_format.dtype} {kv_format.bits}"
            f" {settings.context_window} {arithmetic.dtype} {kernels}"
        )

    return PromptCache(_folder_of(settings.prompt_cache), identity)


def default_folder() -> Path:
    """Return the folder of the prompt cache where none is named."""
    return cache_folder() / "prompts"


def _folder_of(setting: bool | str | Path) -> Path:
    if isinstance(setting, bool):
        return default_folder()
    return given_path(setting)


def _warn_ignored(path: Path, error: Exception) -> None:
    if isinstance(error, FileNotFoundError):  # another process has deleted it
        return
    warnings.warn(f"the kept cache {path} is ignored: {error}", RuntimeWarning, stacklevel=3)
