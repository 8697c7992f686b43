"""Verification of a model folder: its files, their bytes, their claims, and a forward pass."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edgellm.checkpoint.folder import (
    CHECKSUMS,
    DOWNLOAD_AGAIN,
    INDEX,
    inside,
    open_folder,
    read_checksums,
    weight_files,
)
from edgellm.checkpoint.quantization import FLOATS
from edgellm.checkpoint.safetensors_file import DTYPE_BYTES, TensorInfo
from edgellm.converters.tensors.file_rows import read_span
from edgellm.converters.tensors.recipe import first_few
from edgellm.converters.tensors.source import Bytes
from edgellm.converters.tensors.weight_stream import is_finite
from edgellm.errors import (
    EdgeLLMError,
    FormatError,
    MemoryBudgetError,
    NotFiniteError,
    TokenizerError,
)
from edgellm.files.atomic import FileRecord, file_record
from edgellm.files.bounded import read_errors
from edgellm.files.strict_json import quoted, read_json
from edgellm.models.through_mlx_lm.checkpoint import AnyCheckpoint, any_checkpoint_of
from edgellm.open_llm import open_llm
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer

READ_BYTES = 16 << 20
"""Bytes of a tensor that are read at a time."""

SAMPLE = "The 3 little dogs said: it's für uns, 日本!\n"
MAX_TOKENS = 16
"""Tokens of the forward pass: enough for every layer, and for products of several rows."""

BLOB = re.compile(r"[0-9a-f]{64}")
"""The name of a large file in the Hub's cache: its SHA-256."""

VerifyCallback = Callable[[str, int, int], None]
"""Called with a check's name, bytes done and bytes in all; 0 of 0 where it begins."""

Fact = TypeVar("Fact")

MISSING_GROUND = "what it needs is wrong: see above"
"""Why a check is left out."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one check.

    Attributes:
        name: the name of the check.
        passed: None where it could not be made.
        detail: what was found.
        hint: the next step, where it failed.
    """

    name: str
    passed: bool | None
    detail: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """All checks of a folder, in order."""

    path: Path
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return all(verdict.passed is not False for verdict in self.verdicts)

    def as_dict(self) -> dict[str, Any]:
        """Return the whole as one JSON object."""
        return {
            "path": str(self.path),
            "passed": self.passed,
            "checks": [asdict(verdict) for verdict in self.verdicts],
        }


def _ignore(_name: str, _done: int, _total: int) -> None:
    pass


def verify(path: Path, progress: VerifyCallback = _ignore) -> Verification:
    """Check a model folder; nothing is changed.

    A check whose ground another one has taken away is left out; its verdict says so.

    Args:
        path: the folder.
        progress: called as each check begins, and while it reads.
    """
    checks = _FolderChecks(path, progress)
    steps: list[tuple[str, Callable[[], str]]] = [
        ("files", checks.files),
        ("index", checks.index),
        ("shapes", checks.shapes),
        ("checksums", checks.checksums),
        ("values", checks.values),
        ("tokenizer", checks.tokenizer),
        ("forward pass", checks.forward_pass),
    ]
    verdicts = []
    for name, check in steps:
        progress(name, 0, 0)
        try:
            verdicts.append(Verdict(name, True, check()))
        except _CheckSkippedError as reason:
            verdicts.append(Verdict(name, None, str(reason)))
        except EdgeLLMError as error:
            verdicts.append(Verdict(name, False, error.message, error.hint or DOWNLOAD_AGAIN))
    return Verification(path, tuple(verdicts))


class _CheckSkippedError(Exception):
    """The reason for which a check is not made."""


class _FolderChecks:
    """The checks of one folder; each returns what it found, and leans on facts of those before."""

    def __init__(self, path: Path, progress: VerifyCallback) -> None:
        self._path = path
        self._progress = progress
        self._tensors: dict[str, TensorInfo] | None = None
        self._checkpoint: AnyCheckpoint | None = None
        self._tokenizer: Tokenizer | None = None

    def files(self) -> str:
        """Check that every file is there, and every header agrees with its file."""
        folder = open_folder(self._path)
        self._tensors = folder.tensors
        return f"{len(weight_files(self._path))} with weights, {len(folder.tensors)} tensors"

    def index(self) -> str:
        """Check that the index names each tensor's file."""
        tensors = _known(self._tensors)
        if not (self._path / INDEX).exists():
            return "none; the headers are enough"
        claimed = read_json(inside(self._path, INDEX)).get("weight_map")
        if not isinstance(claimed, dict):
            claimed = {}
        actual = {name: tensor.file.name for name, tensor in tensors.items()}
        names = claimed.keys() | actual.keys()
        wrong = sorted(name for name in names if claimed.get(name) != actual.get(name))
        if wrong:
            raise FormatError(
                f"{INDEX} is wrong about {len(wrong)} tensors, {quoted(wrong[0])} among them"
            )
        return f"{len(actual)} tensors where it says"

    def shapes(self) -> str:
        """Check that types and shapes are those that the config asks for."""
        _known(self._tensors)
        self._checkpoint = any_checkpoint_of(open_folder(self._path))
        config = self._checkpoint.config
        return f"{config.num_hidden_layers} layers of {config.model_type}, as the config says"

    def checksums(self) -> str:
        """Check that bytes are those that were written, or downloaded."""
        records = self._records()
        if not records:
            raise _CheckSkippedError(
                "the folder records none: only edgellm's own and the Hub's cache do"
            )
        changed: list[str] = []
        missing: list[str] = []
        done = 0
        total = sum(record.size for record, _ in records)
        for record, file in records:
            if not file.exists():
                missing.append(record.name)
            elif not _is_intact(file, record):
                changed.append(record.name)
            done += record.size
            self._progress("checksums", done, total)
        faults = []
        if len(missing) == 1:
            faults.append(f"{first_few(missing)} is missing")
        elif missing:
            faults.append(f"{first_few(missing)} are missing")
        if changed:
            faults.append(f"{first_few(changed)} changed since the model was made")
        if faults:
            raise FormatError("; ".join(faults))
        return f"{len(records)} files as they were made"

    def values(self) -> str:
        """Check that no scale, bias or unquantized weight is infinite or not a number."""
        tensors = [tensor for tensor in _known(self._tensors).values() if tensor.dtype in FLOATS]
        done = 0
        total = sum(tensor.nbytes for tensor in tensors)
        for tensor in tensors:
            for data in _read_parts(tensor):
                if not is_finite(data, tensor.dtype):
                    where = f"{quoted(tensor.name)} in {tensor.file.name}"
                    raise FormatError(f"{where} holds an infinity or a NaN")
                done += data.nbytes
                self._progress("values", done, total)
        count = sum(tensor.nbytes // DTYPE_BYTES[tensor.dtype] for tensor in tensors)
        return f"{count:,} unquantized numbers are finite"

    def tokenizer(self) -> str:
        """Check that ids lie within the vocabulary, and a text comes back as it went in."""
        checkpoint = self._known_checkpoint()
        vocab_size = checkpoint.config.vocab_size
        tokenizer = Tokenizer.from_folder(self._path, vocab_size=vocab_size)
        text = tokenizer.decode(tokenizer.encode(SAMPLE))
        if text.strip() != SAMPLE.strip():
            raise TokenizerError(
                f"a text comes back as {quoted(text)}",
                hint="copy the tokenizer from the original model",
            )
        self._tokenizer = tokenizer
        return f"{tokenizer.vocab_size:,} of the model's {vocab_size:,} ids"

    def forward_pass(self) -> str:
        """Check that logits are finite."""
        checkpoint = self._known_checkpoint()
        tokenizer = _known(self._tokenizer)
        ids = tokenizer.encode(SAMPLE)[:MAX_TOKENS]
        progress = partial(self._progress, "forward pass")
        settings = LoadSettings(context=MAX_TOKENS)
        try:
            with open_llm(checkpoint, tokenizer, settings, progress=progress) as llm:
                llm.logits(ids)
        except NotFiniteError as error:
            raise FormatError(
                error.message, hint="its weights are damaged: " + DOWNLOAD_AGAIN
            ) from error
        except MemoryBudgetError as error:
            raise _CheckSkippedError(f"it does not fit here: {error.message}") from error
        return f"{len(ids)} tokens, logits finite"

    def _known_checkpoint(self) -> AnyCheckpoint:
        if self._checkpoint is None:
            raise _CheckSkippedError(MISSING_GROUND)
        return self._checkpoint

    def _records(self) -> list[tuple[FileRecord, Path]]:
        """Return what each file should be: as we recorded it, or as the Hub's cache names it."""
        if (self._path / CHECKSUMS).exists():
            return [(record, self._path / record.name) for record in read_checksums(self._path)]
        records = []
        # In the Hub's cache a snapshot's files are links to blobs, named by their SHA-256.
        with read_errors(self._path):
            files = sorted(self._path.iterdir())
        for file in files:
            blob = Path(os.path.realpath(file))  # which takes a link that leads back to itself
            if file.is_symlink() and BLOB.fullmatch(blob.name) and blob.is_file():
                records.append((FileRecord(file.name, blob.stat().st_size, blob.name), blob))
        return records


def _known(fact: Fact | None) -> Fact:
    if fact is None:
        raise _CheckSkippedError(MISSING_GROUND)
    return fact


def _is_intact(file: Path, record: FileRecord) -> bool:
    try:
        found = file_record(file)
    except EdgeLLMError:
        return False
    return (found.size, found.sha256) == (record.size, record.sha256)


def _read_parts(tensor: TensorInfo) -> Iterator[Bytes]:
    """Yield a tensor's bytes, whole numbers at a time."""
    width = DTYPE_BYTES[tensor.dtype]
    step = READ_BYTES // width * width
    for start in range(0, tensor.nbytes, step):
        yield read_span(tensor.file, tensor.offset + start, min(step, tensor.nbytes - start))
