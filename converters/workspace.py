"""The folder in which a conversion grows: locked, resumable, put in place at one stroke."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.checkpoint.folder import CHECKSUMS, CONFIG, MANIFEST
from edgellm.errors import ConversionError, FormatError, ReadError
from edgellm.files.atomic import FileRecord, sync_folder
from edgellm.files.names import PARTIAL_SUFFIX
from edgellm.files.refusals import is_full_disk, write_error
from edgellm.files.strict_json import read_json, write_json

RESUMES = "free some space and run the command again: it goes on where it stopped"


@dataclass(frozen=True, slots=True)
class Finished:
    """A file that is whole, and the quantization errors of its matrices if they were measured."""

    record: FileRecord
    errors: Mapping[str, float] | None


class Workspace:
    """``DEST.partial``: finished files, and a manifest of what they were made from, and how.

    Args:
        destination: the folder that the conversion becomes.
        origin: what the manifest must hold for its files to be kept: the source's fingerprint and
            the recipe's digest.
        replace: whether a model that is already at the destination gives way at the end.
    """

    def __init__(self, destination: Path, origin: Mapping[str, str], *, replace: bool) -> None:
        self.destination = destination
        self.path = destination.with_name(destination.name + ".partial")
        self.finished: dict[str, Finished] = {}
        self.restarted = False
        """Whether files of another source or other settings were there, and were given up."""
        self._replaced = destination.with_name(f".{destination.name}.replaced")
        self._origin = dict(origin)
        self._replace = replace
        self._held = False

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the folder and find what is finished in it; leave nothing where nothing was made.

        Raises:
            ConversionError: the destination is taken, another conversion is at work on it, or the
                disk refuses.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise write_error(self.path, error) from error
        try:
            self._prepare(lock)
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
        finally:
            os.close(lock)

    def finish(self, record: FileRecord, errors: Mapping[str, float] | None) -> None:
        """Note that a file is whole. Raises ConversionError."""
        self.finished[record.name] = Finished(record, errors)
        self._write_manifest()

    def commit(self) -> None:
        """Put the folder in place of the destination; the old or the new one is always whole.

        Raises:
            ConversionError: the disk refuses.
        """
        try:
            (self.path / MANIFEST).unlink()
            sync_folder(self.path)
            if self.destination.exists() and any(self.destination.iterdir()):
                self.destination.rename(self._replaced)
            self.path.rename(self.destination)
            sync_folder(self.destination.parent)
            shutil.rmtree(self._replaced, ignore_errors=True)
        except OSError as error:
            raise write_error(self.destination, error) from error

    def _prepare(self, lock: int) -> None:
        try:
            self._lock(lock)
            self._recover()
            self._require_free_destination()
            self._resume()
        except OSError as error:
            raise write_error(self.path, error) from error

    def _recover(self) -> None:
        """Finish what a process killed inside ``commit`` left half done."""
        if self._replaced.exists():
            if self.destination.exists():
                shutil.rmtree(self._replaced)
            else:
                self._replaced.rename(self.destination)

    def _require_free_destination(self) -> None:
        if not self.destination.exists():
            return
        if not self.destination.is_dir():
            raise ConversionError(f"{self.destination} is a file", hint="name another destination")
        if not any(self.destination.iterdir()):
            return
        if not self._replace:
            raise ConversionError(
                f"{self.destination} already exists",
                hint="name another one, or replace it with --force",
            )
        if not (self.destination / CONFIG).is_file():
            raise ConversionError(
                f"{self.destination} is no model folder and will not be replaced",
                hint="name another destination",
            )

    def _lock(self, descriptor: int) -> None:
        busy = ConversionError(
            f"another conversion is writing {self.path}",
            hint="wait for it, or name another destination",
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise busy from error
        except OSError as error:
            # a network disk without locks goes without
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                raise
        if not self.path.exists() or not os.path.samestat(os.fstat(descriptor), self.path.stat()):
            raise busy  # which has just put the folder in place

    def _resume(self) -> None:
        """Keep the finished files of this very conversion; give up all others."""
        names = [entry.name for entry in self.path.iterdir()]
        ours = (
            MANIFEST in names
            or CHECKSUMS in names
            or all(name.endswith(PARTIAL_SUFFIX) for name in names)
        )
        if not ours:
            raise ConversionError(
                f"{self.path} is in the way: it was not made by a conversion",
                hint="move it, or name another destination",
            )
        self._held = True
        try:
            manifest = read_json(self.path / MANIFEST) if MANIFEST in names else {}
            same = manifest.get("origin") == self._origin
            claimed = dict(_finished(manifest)) if same else {}
        except (FormatError, ReadError):
            same, claimed = False, {}
        self.finished = {
            name: item for name, item in claimed.items() if self._is_there(item.record)
        }
        self.restarted = MANIFEST in names and not same
        for name in names:
            if name not in self.finished and name != MANIFEST:
                (self.path / name).unlink()
        self._write_manifest()

    def _discard(self) -> None:
        if self._held:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            with suppress(OSError):  # not empty: it is not ours
                self.path.rmdir()

    def _is_there(self, record: FileRecord) -> bool:
        file = self.path / record.name
        return (
            Path(record.name).name == record.name
            and file.is_file()
            and file.stat().st_size == record.size
        )

    def _write_manifest(self) -> None:
        files = {
            name: {"size": item.record.size, "sha256": item.record.sha256, "errors": item.errors}
            for name, item in self.finished.items()
        }
        write_json(self.path / MANIFEST, {"format": 1, "origin": self._origin, "files": files})


def _finished(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Finished]]:
    """The files that a manifest lists. Raises FormatError."""
    try:
        for name, item in manifest["files"].items():
            errors = item["errors"]
            if errors is not None:
                errors = {path: float(error) for path, error in errors.items()}
            yield name, Finished(FileRecord(name, int(item["size"]), str(item["sha256"])), errors)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"the manifest of a conversion is damaged: {error}") from error
