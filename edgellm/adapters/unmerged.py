"""A LoRA adapter as changes of a model's layers, which are added while it runs."""

# I in, O out, R rank

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from edgellm.adapters.model_matrices import ModelMatrices
from edgellm.adapters.row_factors import factors_of_rows
from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.dialects.names import spelled
from edgellm.checkpoint.folder import LAYER_NAME, LAYER_PREFIX, open_folder
from edgellm.checkpoint.tensor_order import STACKS
from edgellm.converters.lora.adapter import read_adapter
from edgellm.converters.lora.changes import Adapter, LowRank, finite
from edgellm.converters.lora.our_words import in_our_words
from edgellm.converters.tensors.floats import Floats
from edgellm.converters.tensors.recipe import first_few
from edgellm.errors import FormatError, UnsupportedModelError
from edgellm.files.bounded import read_errors
from edgellm.files.given_path import given_path
from edgellm.models.layers import LayerChange
from edgellm.models.linear import AddedProduct, Stretch

MERGE_IT = "merge it into the weights: edgellm convert MODEL DEST --adapter FOLDER --bits 16"


@dataclass(frozen=True, slots=True)
class _Factors:
    """A matrix's change in memory: up (O, R) with its scale, down (R, I), DoRA's lengths (O,)."""

    path: str
    up: Floats
    down: Floats
    magnitude: Floats | None


@dataclass(frozen=True, slots=True)
class UnmergedAdapter:
    """An adapter that fits a model; its values are not read yet.

    Attributes:
        path: its folder.
        layers: how many the model has.
        changes: of matrices, by their path in the model.
        rows: of each of a layer's matrices, by its name inside the layer.
        files: what it is read from.
        base: the folder of the model, whose weights DoRA's lengths are compared with.
    """

    path: Path
    layers: int
    changes: Mapping[str, LowRank]
    rows: Mapping[str, int]
    files: tuple[Path, ...]
    base: Path

    def nbytes(self, item_bytes: int) -> int:
        """Return the bytes of all factors in memory, in numbers of ``item_bytes``."""
        numbers = 0
        for change in self.changes.values():
            rows, columns = change.shape
            numbers += change.down.shape[0] * (rows + columns)
        nbytes = numbers * item_bytes
        for layer in range(self.layers):
            for members in STACKS.values():
                if self._is_stretched(layer, members):
                    # a factor in float32 for each result, and what is left of a bias
                    nbytes += 8 * sum(self.rows[member] for member in members)
        return nbytes

    def fingerprint(self) -> str:
        """Return a digest of its files. Raises ReadError."""
        digest = hashlib.sha256()
        for file in self.files:
            with read_errors(file), file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest()

    def layer_changes(self, dtype: mx.Dtype) -> list[LayerChange]:
        """Read what is added in each layer, as numbers of a type.

        For a DoRA the rows of the matrices that it changes are read too, once.

        Raises:
            ReadError: a file cannot be read.
            FormatError: a value is infinite or not a number.
        """
        base = None
        if any(change.magnitude is not None for change in self.changes.values()):
            base = ModelMatrices(self.base)
        changes = []
        for layer in range(self.layers):
            products, stretches = {}, {}
            for stack, members in STACKS.items():
                own = self._factors(layer, members)
                if own:
                    products[stack] = self._added(members, own, dtype)
                if base is not None and self._is_stretched(layer, members):
                    stretches[stack] = self._stretch(members, own, base)
            changes.append(LayerChange(products, stretches))
        mx.eval([array for change in changes for array in change.arrays()])
        return changes

    def _factors(self, layer: int, members: Iterable[str]) -> dict[str, _Factors]:
        """Read the changes of a stack's members."""
        paths = {member: f"{LAYER_PREFIX}{layer}.{member}" for member in members}
        return {
            member: _finite_factors(path, self.changes[path])
            for member, path in paths.items()
            if path in self.changes
        }

    def _added(
        self, members: Iterable[str], own: Mapping[str, _Factors], dtype: mx.Dtype
    ) -> list[AddedProduct]:
        """Return what is added to a stack's results."""
        added = []
        first = 0
        for member in members:
            if member in own:
                down, up = (
                    mx.array(part).astype(dtype) for part in (own[member].down, own[member].up)
                )
                added.append(AddedProduct(first, down, up))
            first += self.rows[member]
        return added

    def _is_stretched(self, layer: int, members: Iterable[str]) -> bool:
        """Return whether DoRA gives some rows of a stack lengths of their own."""
        own = (self.changes.get(f"{LAYER_PREFIX}{layer}.{member}") for member in members)
        return any(change is not None and change.magnitude is not None for change in own)

    def _stretch(
        self, members: Iterable[str], own: Mapping[str, _Factors], base: ModelMatrices
    ) -> Stretch:
        """Return the factors of a stack's results; 1 where a row keeps its length."""
        factors, rests, is_biased = [], [], False
        for member in members:
            found = np.ones(self.rows[member], np.float32)
            rest = np.zeros_like(found)
            change = own.get(member)
            if change is not None and change.magnitude is not None:
                path = change.path
                found = factors_of_rows(base, path, change.magnitude, change.up, change.down)
                bias = base.bias(path)
                if bias is not None:
                    rest, is_biased = (1 - found) * bias, True
            factors.append(found)
            rests.append(rest)
        left = mx.array(np.concatenate(rests)) if is_biased else None
        return Stretch(mx.array(np.concatenate(factors)), left)


def open_unmerged(path: str | Path, checkpoint: Checkpoint) -> UnmergedAdapter:
    """Read an adapter's folder, without the values, and check that it fits a model.

    Raises:
        ModelNotFoundError: there is no such folder.
        FormatError: it is damaged, or belongs to another model.
        UnsupportedModelError: it changes more than can be added beside the weights.
        ReadError: a file cannot be read.
    """
    path = given_path(path)
    adapter = _in_our_words(read_adapter(path), checkpoint)
    _require_additions(path, adapter)
    shapes = {
        name.removesuffix(".weight"): shape
        for name, shape in checkpoint.config.tensor_shapes().items()
        if len(shape) == 2
    }
    layers = checkpoint.config.num_hidden_layers
    unknown = []
    for name, change in adapter.changes.items():
        found = LAYER_NAME.match(name)
        expected = None
        if found and int(found[1]) < layers:
            expected = shapes.get(name[found.end() :])
        if expected is None:
            unknown.append(name)
        elif change.shape != expected:
            raise FormatError(
                f"the adapter's change of {name} is {change.shape}; the matrix is {expected}",
                hint="it belongs to another model; adapter_config.json names its base",
            )
    if unknown:
        raise FormatError(
            f"the adapter changes what the model does not have: {first_few(unknown)}",
            hint="it may belong to another model; adapter_config.json names its base",
        )
    rows = {name: shape[0] for name, shape in shapes.items()}
    base = checkpoint.folder.path
    return UnmergedAdapter(path, layers, adapter.changes, rows, adapter.files, base)


def _in_our_words(adapter: Adapter, checkpoint: Checkpoint) -> Adapter:
    """Return the changes of a family's tensors as those of LLaMA's."""
    if not checkpoint.folder.path.is_dir():
        return adapter  # a repository that is not here yet
    folder = open_folder(checkpoint.folder.path)
    shapes = {name: tensor.shape for name, tensor in folder.tensors.items()}
    return in_our_words(adapter, spelled(folder.config, shapes))


def _require_additions(path: Path, adapter: Adapter) -> None:
    """Raise UnsupportedModelError where an adapter does more than add to layers' products."""
    outer = [name for name in adapter.changes if not LAYER_NAME.match(name)]
    refused = {
        "brings tensors of its own": list(adapter.replacements),
        "brings tokens' rows of its own": list(adapter.token_rows),
        "changes the embedding or the head": [
            name for name in outer if name.endswith(("embed_tokens", "lm_head"))
        ],
    }
    for reason, names in refused.items():
        if names:
            raise UnsupportedModelError(
                f"the adapter {path} {reason} ({first_few(names)}), "
                "which cannot be added beside a model's weights",
                hint=MERGE_IT,
            )


def _finite_factors(path: str, change: LowRank) -> _Factors:
    """Read a change, the factors in float32 with the scale in ``up``."""
    # what overflows becomes infinite, and is refused
    with np.errstate(over="ignore", invalid="ignore"):
        up = finite(change.up_values() * np.float32(change.scale), path)
    down = finite(change.down.values(), path)
    # the kernels read rows by address
    up, down = np.ascontiguousarray(up), np.ascontiguousarray(down)
    return _Factors(path, up, down, change.magnitude_values())
