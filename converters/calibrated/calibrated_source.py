"""A model quantized by a text, as a source: layers are made when they are asked for."""

# N tokens of the text, E hidden

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.folder import LAYER_PREFIX
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.quantization import Quantization
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.converters.calibrated.column_quantizer import ColumnQuantizer, QuantizedRows
from edgellm.converters.calibrated.layer_quantizer import (
    CapturedLinear,
    MatrixQuantizer,
    QuantizingLinear,
)
from edgellm.converters.mixed_bits.backward import EMBEDDING, HEAD, NORM
from edgellm.converters.tensors.floats import Floats, stored
from edgellm.converters.tensors.recipe import Matrix, Recipe
from edgellm.converters.tensors.source import AS_SHOWN, Bytes, DerivedSource, Source, SourceTensor
from edgellm.converters.tensors.weight_stream import as_array, matrix_rows
from edgellm.errors import ConfigError, FormatError
from edgellm.kv_cache.cache import KVCache
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.models.llama import Block
from edgellm.models.registry import block_class
from edgellm.training.operations.attention import attention_by_numpy

QUANTIZING = "quantizing by a text"


class CalibratedSource(DerivedSource):
    """A source with matrices quantized so that a text goes through them little changed.

    In memory are one layer and what the text's tokens have made of it, twice: in the source and in
    the quantized model. Layers come in their order; asking for an earlier one starts over.

    Args:
        base: the model.
        recipe: what becomes of its matrices.
        sequences: token ids, all of one length.
        progress: called with layers done and layers in all.

    Raises:
        ConfigError: none of the matrices is to be quantized to affine codes.
    """

    def __init__(
        self,
        base: Source,
        recipe: Recipe,
        sequences: Sequence[Sequence[int]],
        progress: Callable[[int, int], None],
    ) -> None:
        super().__init__(base)
        self._matrices = recipe.matrices
        self._forms = {
            path: matrix.form
            for path, matrix in recipe.matrices.items()
            if matrix.form and matrix.form.mode == "affine" and matrix.form != matrix.stored
        }
        if not self._forms:
            raise ConfigError(
                "nothing is left to quantize by gptq", hint="give other --bits, or leave it out"
            )
        self._sequences = sequences
        self._progress = progress
        self._model = ModelConfig.from_dict(recipe.config)
        self._block = block_class(self._model)
        self._parts: dict[str, Bytes] = {}  # of the layer that was made last
        self._layer = -1  # the next to be made; -1: not even the embedding is
        self._hidden = self._exact_hidden = mx.zeros(0)  # (1, N, E) each
        self.config = recipe.config
        self.forms = AS_SHOWN
        tensors = {
            name: tensor
            for name, tensor in base.tensors.items()
            if name.rpartition(".")[0] not in self._forms or name.endswith(".bias")
        }
        for file in recipe.files:
            for tensor in file.tensors:
                if tensor.matrix is not None and tensor.matrix.path in self._forms:
                    tensors[tensor.name] = SourceTensor(tensor.dtype, tensor.shape)
        self.tensors = tensors

    @property
    def fingerprint(self) -> str:
        """The base's, with the text's tokens."""
        tokens = hashlib.sha256(json.dumps(self._sequences).encode()).hexdigest()
        return f"{self._base.fingerprint}, gptq by {tokens}"

    def rows(self, name: str, start: int, stop: int) -> Bytes:
        """Read rows; those of a quantized matrix are made first. Raises ReadError, FormatError."""
        path = name.rpartition(".")[0]
        if path not in self._forms or name.endswith(".bias"):
            return self._base.rows(name, start, stop)
        if name not in self._parts:
            self._make(path)
        row_bytes = self.tensors[name].row_bytes
        return self._parts[name][start * row_bytes : stop * row_bytes]

    def _make(self, path: str) -> None:
        """Make the matrix of a path, with its layer and all layers before it."""
        needed = self._model.num_hidden_layers
        is_gone = path == EMBEDDING or self._layer < 0
        if path.startswith(LAYER_PREFIX):
            needed = int(path.split(".")[2]) + 1
            is_gone |= needed <= self._layer
        if is_gone:
            self._begin()
        if path == EMBEDDING:
            return
        while self._layer < needed:
            self._parts = {}
            self._quantize_layer(self._layer)
            self._layer += 1
            self._progress(self._layer, self._model.num_hidden_layers)
        if path == HEAD:
            norm = self._block.norm(self._vector(NORM), self._model)
            inputs = (np.array(norm(hidden))[0] for hidden in (self._hidden, self._exact_hidden))
            quantizer = MatrixQuantizer(*inputs)
            self._keep(HEAD, quantizer.quantize(self._matrix(HEAD), *self._form(HEAD)))

    def _begin(self) -> None:
        """Look the tokens up, in the source's embedding and in the quantized one."""
        tokens = mx.array([token for sequence in self._sequences for token in sequence])
        embedding = self._matrix(EMBEDDING)
        scale = self._block.embedding_scale(self._model)
        exact = scale * embedding[tokens][None].astype(mx.float32)
        self._hidden = self._exact_hidden = exact
        self._parts, self._layer = {}, 0
        if EMBEDDING in self._forms:
            moments = np.eye(embedding.shape[1], dtype=np.float32)
            if HEAD not in self._matrices:  # tied: it is what the last hidden states meet
                inputs = self._last_inputs(exact)
                moments = inputs.T @ inputs / np.float32(len(inputs))
            columns = ColumnQuantizer(moments)
            weight = np.array(embedding.astype(mx.float32))
            rows = columns.quantize(weight, *self._form(EMBEDDING))
            self._keep(EMBEDDING, rows)
            self._hidden = scale * mx.array(rows.values())[tokens][None]
        mx.eval(self._hidden, self._exact_hidden)

    def _last_inputs(self, hidden: mx.array) -> Floats:
        """Return what the source's output matrix reads, (N, E)."""
        for index in range(self._model.num_hidden_layers):
            tensors = self._layer_tensors(index)
            hidden, _ = self._exact_layer(index, tensors, hidden)
        norm = self._block.norm(self._vector(NORM), self._model)
        inputs: Floats = np.array(norm(hidden))[0]
        return inputs

    def _quantize_layer(self, index: int) -> None:
        tensors = self._layer_tensors(index)
        self._exact_hidden, captured = self._exact_layer(index, tensors, self._exact_hidden)
        forms = {
            member: self._forms[path]
            for members in STACKS.values()
            for member in members
            if (path := f"{LAYER_PREFIX}{index}.{member}") in self._forms
        }
        block = self._block_of(index, tensors)
        quantizing = {}
        for stack, members in STACKS.items():
            inputs = captured[stack].inputs
            assert inputs is not None, "the source's layer has run"
            dtype = self._matrices[f"{LAYER_PREFIX}{index}.{members[0]}"].dtype
            quantizing[stack] = QuantizingLinear(tensors, members, forms, dtype, inputs)
            _put(block, stack, quantizing[stack])
        self._hidden = block(self._hidden, self._caches(index))
        mx.eval(self._hidden)
        for linear in quantizing.values():
            for member, rows in linear.quantized.items():
                self._keep(f"{LAYER_PREFIX}{index}.{member}", rows)
        mx.clear_cache()

    def _exact_layer(
        self, index: int, tensors: Mapping[str, mx.array], hidden: mx.array
    ) -> tuple[mx.array, dict[str, CapturedLinear]]:
        """Return the source's hidden states behind a layer, and its captured products."""
        block = self._block_of(index, tensors)
        captured = {stack: CapturedLinear(tensors, members) for stack, members in STACKS.items()}
        for stack, linear in captured.items():
            _put(block, stack, linear)
        hidden = block(hidden, self._caches(index))
        mx.eval(hidden)
        return hidden, captured

    def _block_of(self, index: int, tensors: Mapping[str, mx.array]) -> Block:
        block = self._block(self._model, self._model.layer(index), tensors, lambda _: None)
        if mx.default_device() == mx.cpu:
            block.self_attn.attention = attention_by_numpy
        return block

    def _caches(self, index: int) -> list[tuple[KVCache, int]]:
        """Return an empty cache for each sequence, and its number of tokens."""
        model, tokens = self._model, len(self._sequences[0])
        format_ = KVFormat(model.num_key_value_heads, model.head_dim, mx.float32)
        window = model.layer(index).window
        return [(KVCache(format_, capacity=tokens, window=window), tokens) for _ in self._sequences]

    def _layer_tensors(self, index: int) -> dict[str, mx.array]:
        """Read a layer's tensors, named as inside it; only norms and biases are float32."""
        tensors = {}
        for name, shape in self._model.tensor_shapes().items():
            full_name = f"{LAYER_PREFIX}{index}.{name}"
            if len(shape) == 1:
                tensors[name] = self._vector(full_name)
            else:
                tensors[name] = self._matrix(full_name.removesuffix(".weight"))
        mx.eval(tensors)
        return tensors

    def _matrix(self, path: str) -> mx.array:
        matrix: Matrix = self._matrices[path]
        return matrix_rows(self._base, matrix, 0, matrix.shape[0])

    def _vector(self, name: str) -> mx.array:
        tensor = self._base.tensors[name]
        return as_array(self._base.rows(name, 0, tensor.rows), tensor).astype(mx.float32)

    def _form(self, path: str) -> tuple[Quantization, str]:
        return self._forms[path], self._matrices[path].dtype

    def _keep(self, path: str, rows: QuantizedRows) -> None:
        """Keep the bytes of a matrix until they are read. Raises FormatError."""
        if not (np.isfinite(rows.scales).all() and np.isfinite(rows.biases).all()):
            raise FormatError(
                f"{path} cannot be quantized by this text: scales are infinite or not a number",
                hint="look at the source with edgellm verify, or convert with --dtype bfloat16",
            )
        dtype = self._matrices[path].dtype
        self._parts[f"{path}.weight"] = rows.packed(self._forms[path].bits).reshape(-1)
        self._parts[f"{path}.scales"] = stored(rows.scales, dtype)
        self._parts[f"{path}.biases"] = stored(rows.biases, dtype)


def _put(block: Block, stack: str, linear: CapturedLinear | QuantizingLinear) -> None:
    part, name = stack.split(".")
    setattr(getattr(block, part), name, linear)
