"""Samples: each question's outcome, on disk as it comes, so that a stopped run goes on."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgellm.errors import ConfigError, FormatError
from edgellm.files.atomic import append_to_file, require_replaceable
from edgellm.files.bounded import read_bounded
from edgellm.files.refusals import write_error
from edgellm.files.strict_json import parse_json
from edgellm.files.try_lock import try_lock

MAX_BYTES = 1 << 30
MAX_ITEMS = 100_000
"""Values in a line."""

SCHEMA = 1

FLUSH_SECONDS = 1.0
"""Between writes: each of them waits for the disk."""


class Samples:
    """Outcomes by run and question, in memory and in a file, a JSON object per line.

    The file is locked until ``close``.

    Args:
        path: of the file; None keeps them in memory alone.
        resume: go on from what the file holds already, if there is one.

    Raises:
        ConfigError: there is nothing to go on from, a file that would be lost, or one that another
            evaluation writes to.
        FormatError: the file holds something else.
        ConversionError: it cannot be written.
    """

    def __init__(self, path: Path | None, *, resume: bool = False) -> None:
        self._path = path
        self._unwritten: list[bytes] = []
        self._written_at = time.monotonic()
        self._known: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self._ended: dict[str, dict[str, Any]] = {}
        self._lock: int | None = None
        if path is None:
            if resume:
                raise ConfigError(
                    "--resume goes on from a file of samples", hint="name it with --samples"
                )
            return
        require_replaceable(path)
        append_to_file(path, b"")
        self._lock = _locked(path)
        if not os.fstat(self._lock).st_size:
            return
        if not resume:
            self.close()
            raise ConfigError(
                f"{path} holds samples already",
                hint="go on from them with --resume, or delete the file",
            )
        try:
            self._read(path)
        except BaseException:
            self.close()
            raise

    def known(self, run: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the outcomes of a run by the ids of their questions."""
        return self._known[run]

    def end_of(self, run: str) -> Mapping[str, Any] | None:
        """Return what was said of a run at its end; None where it has not ended."""
        return self._ended.get(run)

    def add(self, run: str, question: str, sample: Mapping[str, Any]) -> None:
        """Keep a question's outcome; it is on the disk a second later at most, or on ``flush``.

        Raises:
            ConversionError: the disk refuses.
        """
        self._write({"run": run, "question": question, **sample})

    def end(self, run: str, fields: Mapping[str, Any]) -> None:
        """Say that a run has ended, with what its record has besides outcomes."""
        self._write({"run": run, "ended": dict(fields)})
        self.flush()

    def flush(self) -> None:
        """Put on the disk what is not there yet. Raises ConversionError where it refuses."""
        if self._path is not None and self._unwritten:
            append_to_file(self._path, b"".join(self._unwritten))
        self._unwritten.clear()
        self._written_at = time.monotonic()

    def close(self) -> None:
        """Put on the disk what is not there yet, and let others have the file."""
        try:
            self.flush()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _read(self, path: Path) -> None:
        lines, rest = _whole_lines(path)
        for line in _samples(lines, path):
            self._take(line)
        if rest:  # cut off with the power: what comes next would end its line
            if not _begins_a_sample(rest):
                raise _no_sample(f"{path}, line {len(lines) + 1}")
            try:
                os.truncate(path, path.stat().st_size - len(rest))
            except OSError as error:
                raise write_error(path, error) from error

    def _write(self, line: dict[str, Any]) -> None:
        self._take(line)
        if self._path is not None:
            text = json.dumps({"schema": SCHEMA, **line}, ensure_ascii=False, allow_nan=False)
            self._unwritten.append(text.encode() + b"\n")
        if time.monotonic() - self._written_at > FLUSH_SECONDS:
            self.flush()

    def _take(self, line: dict[str, Any]) -> None:
        run = line["run"]
        if "ended" in line:
            self._ended[run] = line["ended"]
        else:
            self._known[run][line["question"]] = line


def _locked(path: Path) -> int:
    """Open a file and lock it; the lock ends with the descriptor. Raises ConfigError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        try_lock(descriptor)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"another evaluation writes to {path}",
            hint="wait until it has ended, or name another file with --samples",
        ) from error
    return descriptor


def _whole_lines(path: Path) -> tuple[list[bytes], bytes]:
    """Return a file's lines, and what follows the last of them. Raises ReadError."""
    *lines, rest = read_bounded(path, MAX_BYTES).split(b"\n")
    return lines, rest


def _samples(lines: Sequence[bytes], path: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples in lines. Raises FormatError where one is something else."""
    for number, line in enumerate(lines, 1):
        name = f"{path}, line {number}"
        found = parse_json(line, name, max_bytes=MAX_BYTES, max_items=MAX_ITEMS)
        is_whole = isinstance(found.get("run"), str) and (
            isinstance(found.get("question"), str) or isinstance(found.get("ended"), dict)
        )
        if found.pop("schema", None) != SCHEMA or not is_whole:
            raise _no_sample(name)
        yield found


def _begins_a_sample(line: bytes) -> bool:
    """Return whether a line that was cut off may have been a sample; a crash may leave zeros."""
    begin = json.dumps({"schema": SCHEMA, "run": ""}).encode()[:-2]
    written = line.rstrip(b"\0")
    return written.startswith(begin) or begin.startswith(written)


def _no_sample(name: str) -> FormatError:
    return FormatError(
        f"{name} is no sample of edgellm eval",
        hint="name a file that edgellm eval --samples has written",
    )
