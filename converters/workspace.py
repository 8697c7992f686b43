"""The folder in which a conversion grows: locked, resumable, put in place at one stroke."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from edgellm.checkpoint.folder import MANIFEST
from edgellm.converters.destination import make_folder_of
from edgellm.converters.manifest import (
    Finished,
    Manifest,
    is_written,
    read_manifest,
    write_manifest,
)
from edgellm.converters.replaced_model import MOVE_IT, ReplacedModel
from edgellm.errors import ConversionError, FormatError, ReadError
from edgellm.files.atomic import FileRecord, file_record, sync_folder
from edgellm.files.file_lock import file_lock
from edgellm.files.names import beside
from edgellm.files.refusals import is_full_disk, write_error

RESUMES = "free some space and run the command again: it continues where it stopped"

MANIFEST_SUFFIX = ".edgellm.manifest"
"""Of the manifest's name while its folder is put in place."""

CHECKERS = 4
"""Finished files that are read at the same time."""


class Workspace:
    """``DEST.partial``: finished files, and a manifest of what they were made from, and how.

    Nothing is removed but what a conversion has written: files that a manifest names, and those
    with the ending of files that are being written. A folder that holds anything else is refused.

    Args:
        destination: the folder that the conversion becomes.
        origin: what the manifest must hold for its files to be kept: the source's fingerprint and
            the recipe's digest.
        names: the names of all files that the conversion writes.
        command: what is at work, for the error of another one.
        replace: whether a model that is already at the destination gives way at the end.
    """

    def __init__(
        self,
        destination: Path,
        origin: Mapping[str, str],
        names: Collection[str],
        *,
        command: str,
        replace: bool,
    ) -> None:
        self.destination = destination
        self.path: Path = destination.with_name(destination.name + ".partial")
        self.finished: dict[str, Finished] = {}
        self.restarted: bool = False
        """Whether files of another source or other settings were there, and were given up."""
        self.left_behind: Path | None = None
        """Where files of the replaced folder are that could not be moved into the new one."""
        self._manifest = self.path / MANIFEST
        self._manifest_aside = beside(destination, MANIFEST_SUFFIX)
        self._old = ReplacedModel(destination, names)
        self._origin = dict(origin)
        self._names = frozenset(names)
        self._removable = self._names | {MANIFEST}
        self._command = command
        self._replace = replace

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the destination and find what is finished; leave nothing where nothing was made.

        Raises:
            ConversionError: the destination is taken, another conversion is at work on it, or the
                disk refuses.
        """
        make_folder_of(self.destination)
        with file_lock(self.destination, self._command):
            self._prepare()
            try:
                yield
            except FormatError:  # what has been made of a damaged source is of no use
                self._discard()
                raise
            except BaseException as error:
                if not self.finished:
                    self._discard()
                elif is_full_disk(error):
                    raise ConversionError(str(error), hint=RESUMES) from error
                raise

    def give_up_unmeasured(self) -> None:
        """Forget the finished files whose quantization errors were not measured."""
        self.finished = {
            name: item for name, item in self.finished.items() if item.errors is not None
        }

    def check_finished(self) -> Iterator[tuple[str, bool]]:
        """Compare what is finished with its SHA-256; yield names, and whether each is kept.

        Raises:
            ConversionError: the disk refuses.
        """
        items = list(self.finished.values())
        pool = ThreadPoolExecutor(CHECKERS)
        try:
            for item, whole in zip(items, pool.map(self._is_whole, items), strict=True):
                if not whole:
                    del self.finished[item.record.name]
                yield item.record.name, whole
        finally:
            pool.shutdown(cancel_futures=True)
        if len(self.finished) < len(items):
            self._write_manifest()

    def finish(self, record: FileRecord, errors: Mapping[str, float] | None) -> None:
        """Note that a file is whole. Raises ConversionError."""
        self.finished[record.name] = Finished(record, errors)
        self._write_manifest()

    def commit(self) -> None:
        """Put the folder in place of the destination; the old or the new one is always whole.

        Raises:
            ConversionError: the destination has been taken meanwhile, or the disk refuses.
        """
        try:
            self._old.require_free(replace=self._replace)
            self._manifest.rename(self._manifest_aside)  # a whole folder never has it
            sync_folder(self.path)
            with self._old.moved_aside():
                self.path.rename(self.destination)
            sync_folder(self.destination.parent)
            self._manifest_aside.unlink()
        except OSError as error:
            raise write_error(self.destination, error) from error
        with suppress(OSError):  # the new model is whole, and in its place
            self._old.retire()
        if self._old.is_aside():
            self.left_behind = self._old.aside

    def _prepare(self) -> None:
        made = False
        try:
            self._take_back()
            self._old.recover()
            self._old.require_free(replace=self._replace)
            made = not os.path.lexists(self.path)
            self.path.mkdir(exist_ok=True)
            self._resume()
        except BaseException as error:
            if made:
                self._discard()
            if isinstance(error, OSError):
                raise write_error(self.path, error) from error
            raise

    def _take_back(self) -> None:
        """Undo a ``commit`` of this very conversion that was killed before its last step."""
        manifest = read_manifest(self._manifest_aside)
        if manifest is None:
            return
        if not os.path.lexists(self.path) and manifest.origin == self._origin:
            entries = []
            if self.destination.is_dir():
                entries = list(self.destination.iterdir())
            if entries and all(is_written(entry, manifest.names) for entry in entries):
                self.destination.rename(self.path)
        if self.path.is_dir() and not os.path.lexists(self._manifest):
            self._manifest_aside.rename(self._manifest)
        else:  # the folder is in its place, and whole
            self._manifest_aside.unlink()

    def _resume(self) -> None:
        """Keep the finished files of this very conversion; give up all others."""
        if self.path.is_symlink():
            raise ConversionError(f"{self.path} is in the way: it is a link", hint=MOVE_IT)
        manifest = read_manifest(self._manifest)
        known: Collection[str] = ()
        if manifest is not None:
            self._removable |= manifest.names | manifest.files.keys()
            known = self._removable
        entries = list(self.path.iterdir())
        for entry in sorted(entries):
            if not is_written(entry, known):
                raise ConversionError(
                    f"{self.path} is in the way: it holds {entry.name}, "
                    "which no conversion has written",
                    hint=MOVE_IT,
                )
        if manifest is not None and manifest.origin == self._origin:
            self.finished = {
                name: item
                for name, item in manifest.files.items()
                if name in self._names and self._is_there(item.record)
            }
        else:
            self.restarted = manifest is not None
        for entry in entries:
            if entry.name not in self.finished and entry.name != MANIFEST:
                entry.unlink()
        self._write_manifest()

    def _discard(self) -> None:
        """Remove what was made, and the folder if nothing else is in it."""
        with suppress(OSError):
            for entry in list(self.path.iterdir()):
                if is_written(entry, self._removable):
                    entry.unlink()
            self.path.rmdir()

    def _is_there(self, record: FileRecord) -> bool:
        file = self.path / record.name
        return os.path.lexists(file) and file.lstat().st_size == record.size

    def _is_whole(self, item: Finished) -> bool:
        try:
            return file_record(self.path / item.record.name) == item.record
        except (FormatError, ReadError):
            return False

    def _write_manifest(self) -> None:
        write_manifest(self._manifest, Manifest(self._origin, self._names, self.finished))
