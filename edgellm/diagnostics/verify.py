"""Whether a model folder is whole: its files, their bytes, what they claim, and whether the model computes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx

from edgellm.checkpoint.checkpoint import Checkpoint, checkpoint_of
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
from edgellm.converters.tensors.source import Bytes
from edgellm.converters.tensors.weight_stream import is_finite
from edgellm.errors import EdgeLLMError, FormatError, MemoryBudgetError, TokenizerError
from edgellm.files.atomic import FileRecord, file_record
from edgellm.files.strict_json import read_json, shown
from edgellm.open_llm import open_llm
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer

CHUNK_BYTES = 16 << 20
"""Bytes of a tensor that are looked at at once."""

SAMPLE = "The 3 little dogs said: it's für uns, 日本!\n"
TOKENS = 16
"""At most so many go through the model: enough for every layer to be used, and for products of several rows."""

BLOB = re.compile(r"[0-9a-f]{64}")
"""What the Hub's cache calls a large file: its SHA-256."""

Progress = Callable[[str, int, int], None]
Known = TypeVar("Known")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check: whether it passed (None: it could not be made), what was found, and the next step where it failed."""

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
        """The whole as one JSON object."""
        return {
            "path": str(self.path),
            "passed": self.passed,
            "checks": [asdict(verdict) for verdict in self.verdicts],
        }


def verify(path: Path, progress: Progress = lambda _name, _done, _total: None) -> Verification:
    """Check a model folder; nothing is changed.

    Args:
        path: the folder.
        progress: called with the check's name, bytes done and bytes in all.

    A check whose ground another one has taken away is left out; its verdict says so.
    """
    folder = _Folder(path, progress)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("files", folder.files),
        ("index", folder.index),
        ("shapes", folder.shapes),
        ("checksums", folder.checksums),
        ("values", folder.values),
        ("tokenizer", folder.tokenizer),
        ("forward pass", folder.forward),
    ]
    verdicts = []
    for name, check in checks:
        progress(name, 0, 0)
        try:
            verdicts.append(Verdict(name, True, check()))
        except _NotTried as reason:
            verdicts.append(Verdict(name, None, str(reason)))
        except EdgeLLMError as error:
            verdicts.append(Verdict(name, False, error.message, error.hint or DOWNLOAD_AGAIN))
    return Verification(path, tuple(verdicts))


class _NotTried(Exception):  # noqa: N818
    """Why a check is not made."""


class _Folder:
    """What is known of a folder so far; each check may lean on those before it."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path = path
        self._progress = progress
        self._tensors: dict[str, TensorInfo] | None = None
        self._checkpoint: Checkpoint | None = None
        self._found: Tokenizer | None = None

    def files(self) -> str:
        """Every file is there, and every header agrees with its file."""
        folder = open_folder(self._path)
        files = weight_files(self._path)
        self._tensors = folder.tensors
        return f"{len(files)} with weights, {len(folder.tensors)} tensors"

    def index(self) -> str:
        """The index names each tensor's file."""
        tensors = _require(self._tensors)
        if not (self._path / INDEX).exists():
            return "none; the headers tell"
        weight_map = read_json(inside(self._path, INDEX)).get("weight_map")
        claimed = weight_map if isinstance(weight_map, dict) else {}
        found = {name: tensor.file.name for name, tensor in tensors.items()}
        wrong = sorted(
            name for name in claimed.keys() | found.keys() if claimed.get(name) != found.get(name)
        )
        if wrong:
            raise FormatError(
                f"{INDEX} is wrong about {len(wrong)} tensors, {shown(wrong[0])} among them"
            )
        return f"{len(found)} tensors where it says"

    def shapes(self) -> str:
        """Types and shapes are those that the config asks for."""
        _require(self._tensors)
        self._checkpoint = checkpoint_of(open_folder(self._path))
        return f"{len(self._checkpoint.layers)} layers of {self._checkpoint.config.model_type}, as the config says"

    def checksums(self) -> str:
        """Bytes are those that were written, or downloaded."""
        records = self._records()
        if not records:
            raise _NotTried("the folder records none: only edgellm's own and the Hub's cache do")
        changed, missing, done, total = (
            list[str](),
            list[str](),
            0,
            sum(record.size for record, _ in records),
        )
        for record, file in records:
            try:
                same = file_record(file) == FileRecord(file.name, record.size, record.sha256)
            except EdgeLLMError:
                same = False
            if not same:
                (changed if file.exists() else missing).append(record.name)
            done += record.size
            self._progress("checksums", done, total)
        facts = (
            [f"{_listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"]
            if missing
            else []
        )
        facts += [f"{_listed(changed)} changed since the model was made"] if changed else []
        if facts:
            raise FormatError("; ".join(facts))
        return f"{len(records)} files as they were made"

    def values(self) -> str:
        """No scale, bias or unquantized weight is infinite or not a number."""
        tensors = [tensor for tensor in _require(self._tensors).values() if tensor.dtype in FLOATS]
        done, total = 0, sum(tensor.nbytes for tensor in tensors)
        for tensor in tensors:
            for piece in _pieces(tensor):
                if not is_finite(piece, tensor.dtype):
                    raise FormatError(
                        f"{shown(tensor.name)} in {tensor.file.name} holds an infinity or no number"
                    )
                done += piece.nbytes
                self._progress("values", done, total)
        return f"{sum(tensor.nbytes // DTYPE_BYTES[tensor.dtype] for tensor in tensors):,} numbers that are not codes are finite"

    def tokenizer(self) -> str:
        """Ids lie within the vocabulary, and a text comes back as it went in."""
        config = _require(self._checkpoint).config
        found = Tokenizer.from_folder(self._path, vocab_size=config.vocab_size)
        ids = found.encode(SAMPLE)
        back = found.decode(ids)
        if back.strip() != SAMPLE.strip():
            raise TokenizerError(
                f"a text comes back as {shown(back)}",
                hint="copy the tokenizer from the original model",
            )
        outside = sorted(
            token
            for token in _require(self._checkpoint).eos_token_ids
            if token >= config.vocab_size
        )
        if outside:
            raise TokenizerError(
                f"the config ends texts by token {outside[0]}, and there are {config.vocab_size}"
            )
        self._found = found
        return f"{found.vocab_size:,} of the model's {config.vocab_size:,} ids"

    def forward(self) -> str:
        """Logits are finite."""
        checkpoint, tokenizer = _require(self._checkpoint), _require(self._found)
        ids = tokenizer.encode(SAMPLE)[:TOKENS]
        settings = LoadSettings(context=TOKENS)
        try:
            with open_llm(
                checkpoint,
                tokenizer,
                settings,
                progress=lambda done, total: self._progress("forward pass", done, total),
            ) as llm:
                logits = llm.logits(ids)
                finite = bool(mx.all(mx.isfinite(logits)).item())
        except MemoryBudgetError as error:
            raise _NotTried(f"it does not fit here: {error.message}") from error
        if not finite:
            raise FormatError(
                "the model's logits are not finite",
                hint="its weights are damaged: " + DOWNLOAD_AGAIN,
            )
        return f"{len(ids)} tokens, logits finite"

    def _records(self) -> list[tuple[FileRecord, Path]]:
        """What each file should be: as we recorded it, or as the Hub's cache names it."""
        if (self._path / CHECKSUMS).exists():
            return [(record, self._path / record.name) for record in read_checksums(self._path)]
        links = [
            (file, file.resolve()) for file in sorted(self._path.iterdir()) if file.is_symlink()
        ]
        blobs = [
            (file, blob) for file, blob in links if BLOB.fullmatch(blob.name) and blob.is_file()
        ]
        return [
            (FileRecord(file.name, blob.stat().st_size, blob.name), blob) for file, blob in blobs
        ]


def _require(known: Known | None) -> Known:
    if known is None:
        raise _NotTried("what it needs is wrong: see above")
    return known


def _listed(names: Sequence[str]) -> str:
    """Names of files, three at the most."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(map(shown, names[:3]))}{more}"


def _pieces(tensor: TensorInfo) -> Iterator[Bytes]:
    width = DTYPE_BYTES[tensor.dtype]
    step = CHUNK_BYTES // width * width
    for start in range(0, tensor.nbytes, step):
        yield read_span(tensor.file, tensor.offset + start, min(step, tensor.nbytes - start))
