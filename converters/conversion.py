"""From an open source to a model folder: file by file, resumable, in place only when whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from threading import Lock

from edgellm.checkpoint.checkpoint import checkpoint_of
from edgellm.checkpoint.folder import (
    CHECKSUMS,
    CONFIG,
    EMBEDDING_FILE,
    GENERATION_CONFIG,
    HEAD_FILE,
    INDEX,
    ModelFolder,
    read_headers,
    write_checksums,
    write_index,
)
from edgellm.checkpoint.quantization import Quantization
from edgellm.checkpoint.safetensors_file import DATA_ALIGNMENT, TensorData, write_tensors
from edgellm.console.units import plural
from edgellm.converters.destination import require_space
from edgellm.converters.tensors.dtypes import DTYPE_NAMES
from edgellm.converters.tensors.recipe import OutputFile, Recipe, make_recipe
from edgellm.converters.tensors.settings import ConversionSettings
from edgellm.converters.tensors.source import Source
from edgellm.converters.tensors.weight_stream import WeightStream, has_kernel
from edgellm.converters.tokenizers.companions import companion_parts, companion_tokenizer
from edgellm.converters.tokenizers.turn_ends import with_turn_ends
from edgellm.converters.workspace import Workspace
from edgellm.files.atomic import FileRecord, write_file
from edgellm.files.strict_json import write_json
from edgellm.tokenizer.tokenizer import has_vocabulary

MAKERS = 2
"""Files made at the same time: one is written while another is read."""

NO_TOKENIZER = (
    "the source has no tokenizer, without which the result does not run: --tokenizer names one"
)

ConvertCallback = Callable[["ConversionStep"], None]
"""Called as a conversion goes on."""


@dataclass(frozen=True, slots=True)
class ConversionStep:
    """How far a conversion is; ``message`` is for the person, where there is something to say."""

    file: str
    bytes_done: int
    bytes_total: int
    message: str | None = None


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """A model folder that a conversion has made.

    Attributes:
        path: the model folder.
        weight_bytes: bytes of all tensors.
        dtype: the type of everything unquantized, and of scales.
        quantization: the usual form of a matrix; None: unquantized.
        exceptions: how the matrices are stored that differ from it, by their path; None:
            unquantized.
        kept_files: files that an earlier, stopped run had finished.
        errors: the relative root-mean-square error of each matrix quantized here, if it was asked
            for or if the source was quantized already.
        merged: tensors that an adapter has changed.
        change_kept: the share of its low-rank changes that is left after quantizing; None: there
            are none, or nothing was quantized.
    """

    path: Path
    weight_bytes: int
    dtype: str
    quantization: Quantization | None
    exceptions: Mapping[str, Quantization | None]
    kept_files: int
    errors: Mapping[str, float] | None
    merged: int = 0
    change_kept: float | None = None


def convert_source(
    source: Source,
    destination: Path,
    settings: ConversionSettings,
    *,
    force: bool,
    report: bool,
    progress: ConvertCallback,
    chosen: Mapping[str, Quantization] | None = None,
    workers: int | None = None,
    command: str = "edgellm convert",
) -> ConversionReport:
    """As ``convert``, from a source that is open; ``chosen`` are the forms of single matrices.

    ``workers`` files are made at the same time, each in a thread; more than one only where the
    source gives rows to several threads. None: two, but one of those for which MLX quantizes. A
    single worker makes them in the model's order: embedding, layers, head.
    """
    recipe = make_recipe(source, settings, chosen)
    companions = source.companions
    turn_ends: list[str] = []
    if has_vocabulary(companions):
        tokenizer = companion_tokenizer(companions, vocab_size=recipe.config["vocab_size"])
        companions, turn_ends = with_turn_ends(companions, recipe.config, tokenizer)
    again = _quantizes_again(source, recipe)
    report = report or again
    origin = {"source": source.fingerprint, "recipe": recipe.digest}
    names = {file.name for file in recipe.files} | companions.keys() | {CONFIG, INDEX, CHECKSUMS}
    work = Workspace(destination, origin, names, command=command, replace=force)
    counter = ConversionProgress(sum(file.source_bytes for file in recipe.files), progress)
    with work.opened():
        for note in (*source.notes, *recipe.notes):
            counter.say(note)
        if not has_vocabulary(companions):
            counter.say(NO_TOKENIZER)
        if turn_ends:
            counter.say(
                f"{', '.join(turn_ends)} ends turns in the chat template and becomes an end of "
                f"answers in {GENERATION_CONFIG}"
            )
        if again:
            counter.say("requantizing an already quantized model adds errors")
        if work.restarted:
            counter.say(
                "the source or the settings have changed since a conversion was stopped here: "
                "starting over"
            )
        if report:
            work.give_up_unmeasured()
        _check_finished(work, recipe, counter)
        kept_files = len(work.finished)
        waiting = [file for file in recipe.files if file.name not in work.finished]
        require_space(destination, sum(file.nbytes + DATA_ALIGNMENT for file in waiting))

        noting = Lock()

        def write(file: OutputFile) -> None:
            stream = WeightStream(source, partial(counter.read, file.name), measure=report)
            record = write_tensors(work.path / file.name, _written(file, stream))
            with noting:
                work.finish(record, stream.errors if report else None)

        if workers != 1:
            # embedding and head first: one of them alone would keep a single thread at the end
            waiting.sort(key=lambda file: file.name not in (EMBEDDING_FILE, HEAD_FILE))
        single = [file for file in waiting if _is_quantized_by_mlx(file)]
        others = [file for file in waiting if file not in single]
        _each(write, others, workers or MAKERS)
        _each(write, single, workers or 1)
        _write_companions(companions, recipe, work)
        work.commit()
        if work.left_behind is not None:
            counter.say(f"files of the model that was replaced are in {work.left_behind}")
    errors = {
        path: error
        for item in work.finished.values()
        for path, error in (item.errors or {}).items()
    }
    return ConversionReport(
        path=destination,
        weight_bytes=sum(file.nbytes for file in recipe.files),
        dtype=DTYPE_NAMES[recipe.dtype],
        quantization=recipe.quantization,
        exceptions={
            path: item.form
            for path, item in recipe.matrices.items()
            if item.form != recipe.quantization
        },
        kept_files=kept_files,
        errors=errors if report else None,
    )


def _written(file: OutputFile, stream: WeightStream) -> list[TensorData]:
    """Return a file's tensors as they are written; rows of a fused one come member by member."""
    written = []
    for name, group in groupby(file.tensors, key=lambda item: item.written_as):
        members = list(group)
        first = members[0]
        shape = (sum(item.shape[0] for item in members), *first.shape[1:])
        data = chain.from_iterable(map(stream.data, members))
        written.append(TensorData(name, first.dtype, shape, data))
    return written


def _is_quantized_by_mlx(file: OutputFile) -> bool:
    """Return whether one of a file's matrices is quantized on the way, and not by a kernel."""
    return any(
        item.matrix is not None
        and item.matrix.form is not None
        and item.matrix.form != item.matrix.stored
        and not has_kernel(item.matrix.form)
        for item in file.tensors
    )


class ConversionProgress:
    """Counts the source's bytes for progress; several threads may read."""

    def __init__(self, total: int, progress: ConvertCallback) -> None:
        self._done = 0
        self._total = total
        self._progress = progress
        self._lock = Lock()

    def read(self, file: str, nbytes: int) -> None:
        """Report that this many more bytes of a file have been read."""
        with self._lock:
            self._done += nbytes
            self._progress(ConversionStep(file, self._done, self._total, None))

    def say(self, message: str) -> None:
        """Report something for a person to know."""
        self._progress(ConversionStep("", self._done, self._total, message))


def _each(write: Callable[[OutputFile], None], files: Sequence[OutputFile], workers: int) -> None:
    """Write files, a few at a time; after a failure end those that are begun, and begin none."""
    if workers == 1:
        for file in files:
            write(file)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            for done in as_completed([pool.submit(write, file) for file in files]):
                done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _check_finished(work: Workspace, recipe: Recipe, counter: ConversionProgress) -> None:
    """Read again what an earlier run has finished; what is damaged is made again."""
    if not work.finished:
        return
    counter.say(f"checking {plural(len(work.finished), 'finished file')}")
    source_bytes = {file.name: file.source_bytes for file in recipe.files}
    for name, kept in work.check_finished():
        if kept:
            counter.read(name, source_bytes[name])
        else:
            counter.say(f"{name} is damaged, and is made again")


def _quantizes_again(source: Source, recipe: Recipe) -> bool:
    """Return whether codes become other codes; what that costs is then measured."""
    return any(
        matrix.form and matrix.form != matrix.stored
        for path, matrix in recipe.matrices.items()
        if matrix.stored or path in source.forms
    )


def _write_companions(
    companions: Mapping[str, Path | bytes], recipe: Recipe, work: Workspace
) -> None:
    """Everything but the weights; then look at the whole as any reader will."""
    folder = work.path
    records: list[FileRecord] = [item.record for item in work.finished.values()]
    for name, content in companions.items():
        records.append(write_file(folder / name, companion_parts(content)))
    records.append(write_json(folder / CONFIG, recipe.config, finite=False))
    files = {tensor.written_as: file.name for file in recipe.files for tensor in file.tensors}
    records.append(write_index(folder, files, sum(file.nbytes for file in recipe.files)))
    write_checksums(folder, records)
    tensors = read_headers(folder / file.name for file in recipe.files)
    checkpoint_of(ModelFolder(folder, recipe.config, tensors, {}))
