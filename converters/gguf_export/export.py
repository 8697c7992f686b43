"""A model folder as one GGUF file: the same codes where llama.cpp has a block type for them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgellm.checkpoint.dialects.config_values import token_ids
from edgellm.checkpoint.folder import GENERATION_CONFIG
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.converters.conversion import (
    ConversionProgress,
    ConvertCallback,
)
from edgellm.converters.destination import destination_path, make_folder_of, require_space
from edgellm.converters.formats import open_format
from edgellm.converters.gguf.architectures.names import gguf_name, is_permuted, norm_offset
from edgellm.converters.gguf.family_numbers import FULL_EVERY
from edgellm.converters.gguf_export.matrices import GgufMatrix
from edgellm.converters.gguf_export.model_metadata import (
    architecture_of,
    model_metadata,
    rope_factor_outputs,
)
from edgellm.converters.gguf_export.vocabulary import vocabulary_metadata
from edgellm.converters.gguf_export.writer import GgufOutput, require_free, write_gguf
from edgellm.converters.huggingface.source import HuggingFaceSource
from edgellm.converters.lora.kept_change import kept_change
from edgellm.converters.lora.merged_source import MergedSource
from edgellm.converters.tensors.recipe import OutputTensor, make_recipe
from edgellm.converters.tensors.settings import ConversionSettings
from edgellm.converters.tensors.source import Bytes, Source
from edgellm.converters.tensors.spelled_source import SpelledSource
from edgellm.errors import UnsupportedModelError
from edgellm.files.file_lock import file_lock
from edgellm.files.given_path import given_path
from edgellm.files.strict_json import read_json
from edgellm.hub.resolve import locate

GATE, UP = "mlp.gate_proj.weight", "mlp.up_proj.weight"
GATE_UP = "mlp.gate_up_proj.weight"

NAMES_OF_PHI3 = ("phi-3", "phi3")
TOKENS_OF_PHI3 = frozenset({"</s>", "<unk>", "<s>", "<|endoftext|>"})
"""llama.cpp gives these a meaning where a model's name has one of those parts; without them it
refuses the file: ``unordered_map::at``."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """The outcome of an export.

    Attributes:
        path: the file.
        file_bytes: its size.
        kinds: matrices of each of llama.cpp's types.
        errors: of each matrix that is not exactly what it was, by its path: the root mean square of
            the change over that of the weights.
        notes: where llama.cpp will not compute what edgellm does, or cut texts as it does.
        merged: how many tensors an adapter has changed.
        change_kept: share of the adapter's change that is left after rounding; None: there is no
            low-rank change.
    """

    path: Path
    file_bytes: int
    kinds: Mapping[str, int]
    errors: Mapping[str, float]
    notes: tuple[str, ...]
    merged: int = 0
    change_kept: float | None = None


def export(
    model: str | Path,
    destination: str | Path,
    *,
    adapter: str | Path | None = None,
    force: bool = False,
    progress: ConvertCallback | None = None,
) -> ExportReport:
    """Make a GGUF file of a model folder.

    4-bit matrices become Q4_1, 5-bit ones Q5_1, mxfp4 and nvfp4 ones MXFP4 and NVFP4, signed ones
    of 1 and 2 bits Q1_0 and Q2_0, with their own codes; 8-bit ones Q8_0; other quantized ones F16;
    unquantized ones stay as they are.

    Args:
        model: a folder, a bundled name or a Hub id.
        destination: the file to be made.
        adapter: a LoRA adapter to be merged into the model; the matrices that it changes are
            unquantized in the file, in the type of their numbers or scales.
        force: replace the file that is there, once the new one is whole.
        progress: called after each piece of the model.

    Raises:
        ModelNotFoundError, DownloadError, FormatError, ReadError, TokenizerError: the model is not
            there, or damaged.
        UnsupportedModelError: llama.cpp does not run such a model.
        ConversionError: the destination is taken, there is no space, or the disk refuses.
    """
    path = destination_path(destination)
    folder = locate(model)
    make_folder_of(path)
    with file_lock(path, "edgellm export"):
        require_free(path, replace=force)
        source: Source = SpelledSource(HuggingFaceSource(folder))
        if adapter is None:
            return _export(source, folder, path, replace=force, progress=progress)
        merged = MergedSource(source, given_path(adapter))
        report = _export(merged, folder, path, replace=force, progress=progress)
        made = open_format(path)
        kept = None if made is None else kept_change(merged, made)
        return dataclasses.replace(report, merged=merged.merged, change_kept=kept)


def _export(
    source: Source, folder: Path, path: Path, *, replace: bool, progress: ConvertCallback | None
) -> ExportReport:
    recipe = make_recipe(source, ConversionSettings(bits=16))
    config = ModelConfig.from_dict(recipe.config)
    architecture = architecture_of(config)
    source_bytes = sum(file.source_bytes for file in recipe.files)
    counter = ConversionProgress(source_bytes, progress or (lambda _: None))
    on_read = partial(counter.read, path.name)
    matrices = {
        tensor.name: _matrix(source, tensor, architecture, config.head_dim, on_read)
        for file in recipe.files
        for tensor in file.tensors
    }
    kinds = {name: matrix.kind for name, matrix in matrices.items()}
    ends = _end_ids(config, folder)
    vocabulary, token_notes = vocabulary_metadata(folder, config.vocab_size, ends)
    name = _name_of(folder, vocabulary["tokenizer.ggml.tokens"])
    metadata = model_metadata(config, name, kinds) | vocabulary
    notes = [*recipe.notes, *_notes(config, architecture), *token_notes]
    for note in notes:
        counter.say(note)
    outputs = rope_factor_outputs(config)
    outputs += _outputs(matrices, architecture)
    require_space(path, sum(output.nbytes for output in outputs))
    file_bytes = write_gguf(path, metadata, outputs, replace=replace)
    wide = {name: matrix for name, matrix in matrices.items() if len(matrix.shape) > 1}
    return ExportReport(
        path=path,
        file_bytes=file_bytes,
        kinds=Counter(matrix.kind for matrix in wide.values()),
        errors={
            name.removesuffix(".weight"): matrix.error
            for name, matrix in wide.items()
            if matrix.error
        },
        notes=tuple(notes),
    )


def _name_of(folder: Path, tokens: Sequence[str]) -> str:
    """Return the model's name, which is the folder's where llama.cpp can open it under that."""
    name = folder.resolve().name
    is_phi3 = any(part in name.lower() for part in NAMES_OF_PHI3)
    if is_phi3 and not TOKENS_OF_PHI3.issubset(tokens):
        return "model"
    return name


def _outputs(matrices: Mapping[str, GgufMatrix], architecture: str) -> list[GgufOutput]:
    """Return the file's tensors; phi3's gate and up are one, with the gate above.

    Raises UnsupportedModelError where those two are of different types.
    """
    outputs = []
    for name, matrix in matrices.items():
        named, shape = name, matrix.shape
        pieces: Callable[[], Iterable[Bytes]] = matrix.pieces
        if architecture == "phi3" and name.endswith(GATE):
            continue
        if architecture == "phi3" and name.endswith(UP):
            gate = matrices[name.removesuffix(UP) + GATE]
            if gate.kind != matrix.kind:
                raise UnsupportedModelError(
                    f"gate and up are one matrix to llama.cpp's phi3, and are of types "
                    f"{gate.kind} and {matrix.kind} here",
                    hint="convert the model with the same bits for both, and export that",
                )
            shape = (gate.shape[0] + shape[0], shape[1])
            pieces = partial(_one_after_the_other, gate, matrix)
            named = name.removesuffix(UP) + GATE_UP
        outputs.append(GgufOutput(gguf_name(named, architecture), matrix.kind, shape, pieces))
    return outputs


def _one_after_the_other(*matrices: GgufMatrix) -> Iterator[Bytes]:
    for matrix in matrices:
        yield from matrix.pieces()


def _matrix(
    source: Source,
    tensor: OutputTensor,
    architecture: str,
    head_dim: int,
    on_read: Callable[[int], None],
) -> GgufMatrix:
    path = tensor.name
    stored = None
    if tensor.matrix is not None and tensor.matrix.stored is not None:
        path = tensor.matrix.path
        stored = tensor.matrix.stored
    permuted_head = None
    if is_permuted(architecture, tensor.name):
        permuted_head = head_dim
    return GgufMatrix(
        source=source,
        path=path,
        shape=tensor.shape,
        stored=stored,
        head_dim=permuted_head,
        offset=norm_offset(architecture, tensor.name),
        on_read=on_read,
    )


def _end_ids(config: ModelConfig, folder: Path) -> frozenset[int]:
    """Return the ids that end a completion, by both configs of the folder."""
    ends = config.eos_token_ids
    if (folder / GENERATION_CONFIG).exists():
        generation_config = read_json(folder / GENERATION_CONFIG)
        ends |= token_ids(generation_config.get("eos_token_id"), config.vocab_size)
    return ends


def _notes(config: ModelConfig, architecture: str) -> list[str]:
    """Return where llama.cpp will not compute what edgellm does."""
    notes = []
    window = config.sliding_window
    knows_windows = architecture in FULL_EVERY
    if window is not None and not knows_windows and window < config.max_position_embeddings:
        notes.append(
            "llama.cpp attends to all tokens, also to those before this model's window of "
            f"{config.sliding_window}"
        )
    return notes
