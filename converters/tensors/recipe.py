"""The plan of a conversion, made before a weight is read: files, tensors, types, and config."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from edgellm.checkpoint.dialects.names import fused_path
from edgellm.checkpoint.folder import EMBEDDING_FILE, HEAD_FILE, LAYER_PREFIX, layer_file
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.quantization import (
    DEFAULT_BITS,
    DEFAULT_GROUP_SIZE,
    FLOATS,
    GROUP_SIZES,
    QUANTIZED_PARTS,
    Quantization,
    chosen_quantization,
    quantization_block,
    quantization_of,
    require_unquantized,
    stored_quantization,
)
from edgellm.checkpoint.safetensors_file import DTYPE_BYTES
from edgellm.checkpoint.tensor_order import tensor_order
from edgellm.console.units import plural
from edgellm.converters.tensors.dtypes import portable_config
from edgellm.converters.tensors.settings import CODES, UNQUANTIZED_BITS, ConversionSettings
from edgellm.converters.tensors.source import Source, SourceTensor
from edgellm.errors import FormatError
from edgellm.files.strict_json import quoted

EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix (out, in): how the source stores it and how the folder will.

    None stands for unquantized.

    ``dtype`` is what its unquantized values, or its scales, have in the folder. ``written_as`` is
    the path of the folder's matrix that its rows lie in, mostly its own.
    """

    path: str
    shape: tuple[int, int]
    stored: Quantization | None
    form: Quantization | None
    dtype: str
    written_as: str


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One tensor of ours; ``matrix`` is what it is a part of, None for a vector."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    matrix: Matrix | None

    @property
    def written_as(self) -> str:
        """The tensor of the folder that its rows lie in, with those of its neighbours."""
        if self.matrix is None:
            return self.name
        return self.name.replace(self.matrix.path, self.matrix.written_as)

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file of the folder, its tensors in their order."""

    name: str
    tensors: tuple[OutputTensor, ...]
    source_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a conversion will write, save the values.

    ``left_out`` are tensors of the source that its model does not have.
    """

    files: tuple[OutputFile, ...]
    matrices: Mapping[str, Matrix]
    config: dict[str, Any]
    dtype: str
    quantization: Quantization | None
    left_out: Sequence[str]

    @property
    def notes(self) -> Sequence[str]:
        """A word about tensors that are left out, where some are."""
        if not self.left_out:
            return []
        listed = first_few(self.left_out)
        notes = [f"left out, as the model that the config describes has no such tensors: {listed}"]
        layers = {name.split(".")[2] for name in self.left_out if name.startswith(LAYER_PREFIX)}
        layers -= {name.split(".")[2] for name in self.matrices if name.startswith(LAYER_PREFIX)}
        if layers:
            notes.append(
                f"{plural(len(layers), 'whole layer')} left out: num_hidden_layers in config.json "
                "is smaller than what the files hold; is it this model's?"
            )
        return notes

    @property
    def digest(self) -> str:
        """A text that two recipes share only if they write the same from the same source."""
        tensors = [
            (file.name, [(item.written_as, item.dtype, item.shape) for item in file.tensors])
            for file in self.files
        ]
        text = json.dumps([tensors, self.config], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def make_recipe(
    source: Source, settings: ConversionSettings, chosen: Mapping[str, Quantization] | None = None
) -> Recipe:
    """Check a source's tensors against its config, and decide what becomes of each.

    Args:
        source: where the weights come from.
        settings: what they become.
        chosen: the forms of single matrices, by path, where they are not to have the usual one.

    Raises:
        ConfigError: the settings ask for what this source cannot become.
        FormatError: a tensor is missing, unknown, or of another type or shape than the config says.
        UnsupportedModelError: another kind of model.
    """
    raw = dict(source.config)
    if raw.get("tie_word_embeddings") is None and "lm_head.weight" not in source.tensors:
        raw["tie_word_embeddings"] = True
    config = ModelConfig.from_dict(raw)
    layer = config.tensor_shapes()
    outer = config.outer_shapes()
    named = [(EMBEDDING_FILE, {EMBEDDING: outer.pop(EMBEDDING)})]
    for index in range(config.num_hidden_layers):
        prefix = f"{LAYER_PREFIX}{index}."
        named.append((layer_file(index), {prefix + name: size for name, size in layer.items()}))
    named.append((HEAD_FILE, outer))
    shapes = {name: shape for _, group in named for name, shape in group.items()}
    stored = _stored_forms(source, raw, shapes)
    default, as_it_is = _default(settings, raw, stored, source.forms)
    cast = None
    if settings.dtype:
        cast = CODES[settings.dtype]
    elif not as_it_is:
        cast = _usual_dtype(source.tensors)
    matrices = {}
    for path, shape in _matrices(shapes).items():
        form = _form(shape, default)
        if as_it_is:
            form = stored[path] or source.forms.get(path)
        if chosen:
            form = chosen.get(path, form)
        part = "scales" if stored[path] else "weight"
        dtype = cast or source.tensors[f"{path}.{part}"].usual_dtype
        matrices[path] = Matrix(
            path, shape, stored[path], form, dtype, fused_path(path, config.model_type)
        )
    matrices = _alike_where_fused(matrices)
    files = tuple(_file(name, group, matrices, source, cast) for name, group in named)
    known = {
        name for path, matrix in matrices.items() for name in _parts(path, matrix.stored)
    } | shapes.keys()
    left_out = _left_out(source, known, shapes)
    block = None
    if default:
        forms = {matrix.written_as: matrix.form for matrix in matrices.values()}
        block = quantization_block(default, forms)
    dtype = next(tensor.dtype for tensor in files[-1].tensors if tensor.name == "model.norm.weight")
    return Recipe(
        files, matrices, portable_config(raw, config, dtype, block), dtype, default, left_out
    )


def _matrices(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    return {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in shapes.items()
        if len(shape) == 2
    }


def _parts(path: str, form: Quantization | None) -> list[str]:
    parts: tuple[str, ...] = QUANTIZED_PARTS
    if form is None:
        parts = QUANTIZED_PARTS[:1]
    elif form.mode != "affine":
        parts = QUANTIZED_PARTS[:2]  # other modes have no biases
    return [f"{path}.{part}" for part in parts]


def _stored_forms(
    source: Source, raw: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Quantization | None]:
    """Find how the source stores each matrix; vectors are checked on the way."""
    for name, shape in shapes.items():
        if len(shape) == 1:
            tensor = source.tensors.get(name)
            if tensor is None:
                raise _missing(name, source.tensors.keys() - shapes.keys())
            require_unquantized(name, tensor.dtype, tensor.shape, shape)
    forms = {}
    for path, shape in _matrices(shapes).items():
        parts = {
            part: source.tensors[f"{path}.{part}"]
            for part in QUANTIZED_PARTS
            if f"{path}.{part}" in source.tensors
        }
        forms[path] = stored_quantization(raw, path, parts, shape)
    return forms


def _missing(name: str, others: Set[str]) -> FormatError:
    """Return the error about a tensor that is not there, and what may be it under another name."""
    called = sorted(other for other in others if other.endswith(name.removeprefix(LAYER_PREFIX)))
    if not called:
        return FormatError(f"tensor {name} is missing", hint="download the model again")
    return FormatError(
        f"tensor {name} is missing; there is {quoted(called[0])}",
        hint="save the model again with transformers, under the names that it has there",
    )


def _default(
    settings: ConversionSettings,
    raw: Mapping[str, Any],
    stored: Mapping[str, Quantization | None],
    wished: Mapping[str, Quantization],
) -> tuple[Quantization | None, bool]:
    """Return the usual form, and whether a quantized source is taken as it is."""
    if settings.bits == UNQUANTIZED_BITS:
        return None, False
    if not any(stored.values()) and not wished:
        return Quantization(
            settings.bits or DEFAULT_BITS, settings.group_size or DEFAULT_GROUP_SIZE
        ), False
    default = (
        quantization_of(raw, "") or next(iter(Counter(wished.values()).most_common(1)), (None,))[0]
    )
    if default is None:
        raise FormatError("the source holds quantized tensors and its config says nothing of them")
    bits, group_size = settings.bits or default.bits, settings.group_size or default.group_size
    if (bits, group_size) == (default.bits, default.group_size):
        return default, True
    if group_size not in GROUP_SIZES:  # 16, which only another mode has
        group_size = DEFAULT_GROUP_SIZE
    return Quantization(bits, group_size), False


def _form(shape: tuple[int, int], default: Quantization | None) -> Quantization | None:
    if default is None:
        return None
    return chosen_quantization(shape[1], default.bits, default.group_size)


def _alike_where_fused(matrices: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """Give the matrices that lie in one of the folder's the finest form and type among them."""
    fused: dict[str, list[Matrix]] = {}
    for matrix in matrices.values():
        fused.setdefault(matrix.written_as, []).append(matrix)
    alike: dict[str, Matrix] = {}
    for members in fused.values():
        form = max((matrix.form for matrix in members), key=_fineness)
        dtype = max((matrix.dtype for matrix in members), key=DTYPE_BYTES.__getitem__)
        alike |= {matrix.path: replace(matrix, form=form, dtype=dtype) for matrix in members}
    return {path: alike[path] for path in matrices}


def _fineness(form: Quantization | None) -> tuple[int, int]:
    if form is None:
        return UNQUANTIZED_BITS, 0
    return form.bits, -form.group_size


def _usual_dtype(tensors: Mapping[str, SourceTensor]) -> str:
    """Return the floating type that most of the weights have."""
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        if tensor.dtype in FLOATS:
            sizes[tensor.usual_dtype] += math.prod(tensor.shape)
    return sizes.most_common(1)[0][0]


def _file(
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    matrices: Mapping[str, Matrix],
    source: Source,
    cast: str | None,
) -> OutputFile:
    tensors: dict[str, OutputTensor] = {}
    read = 0
    for origin, shape in shapes.items():
        path = origin.removesuffix(".weight")
        matrix = matrices.get(path)  # None: a norm or a bias
        names = [origin]
        if matrix is not None:
            names = _parts(path, matrix.stored)
        read += sum(source.tensors[item].nbytes for item in names)
        if matrix and matrix.form:
            for part, stored in matrix.form.stored(*matrix.shape, matrix.dtype).items():
                full_name = f"{path}.{part}"
                tensors[full_name] = OutputTensor(full_name, *stored, matrix)
        elif matrix is not None:
            tensors[origin] = OutputTensor(origin, matrix.dtype, shape, matrix)
        else:
            dtype = cast or source.tensors[origin].usual_dtype
            tensors[origin] = OutputTensor(origin, dtype, shape, None)
    prefix = _layer_prefix(shapes)
    sizes = {item.removeprefix(prefix): tensor.nbytes for item, tensor in tensors.items()}
    order = tensor_order(sizes)
    return OutputFile(name, tuple(tensors[prefix + item] for item in order), read)


def _layer_prefix(names: Mapping[str, object]) -> str:
    """Return ``model.layers.N.`` for a layer's tensors, else nothing."""
    first = next(iter(names))
    if not first.startswith(LAYER_PREFIX):
        return ""
    return ".".join(first.split(".")[:3]) + "."


def _left_out(source: Source, known: Set[str], shapes: Mapping[str, object]) -> Sequence[str]:
    """Return the tensors that the model does not have: buffers, other heads, parts that see.

    Other tools leave them out too. Refused are numbers of one of the model's own matrices or
    vectors, a bias or half of an adapter: without them it would compute something else.
    """
    modules = {name.rpartition(".")[0] for name in shapes}
    unknown = sorted(source.tensors.keys() - known)
    meant = [
        name
        for name in unknown
        if source.tensors[name].dtype in FLOATS
        and source.tensors[name].shape
        and any(path in modules for path in _paths_above(name))
    ]
    if meant:
        raise FormatError(
            "the source holds tensors that its config does not account for: " + first_few(meant),
            hint="the config may belong to another model",
        )
    return unknown


def _paths_above(name: str) -> Iterator[str]:
    """Yield what a tensor belongs to by its name, the nearest first."""
    path, _, _ = name.rpartition(".")
    while path:
        yield path
        path, _, _ = path.rpartition(".")


def first_few(names: Sequence[str]) -> str:
    """Return up to three names for a message, in their order, and how many more there are."""
    listed = ", ".join(map(quoted, sorted(names)[:3]))
    if len(names) > 3:
        listed += f" and {len(names) - 3} more"
    return listed
