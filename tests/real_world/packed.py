"""Folders in other quantizers' forms, and the same numbers in float32 beside them."""

import mlx.core as mx
import numpy as np
from support.packed_models import CODES

from edgellm.checkpoint.safetensors_file import TensorData, write_tensors
from real_world.release import Built, write
from real_world.weights import random_weights


def write_packed(
    path, config, files, block, parts, *, dtype="float16", by_itself=False, extra=None, **built
):
    """Write a release whose layers' matrices are ``parts(random, outputs, inputs)``.

    Args:
        path: the folder; the float32 one lies beside it.
        config: of the model, without the block.
        files: of the tokenizer.
        block: the config's ``quantization_config``.
        parts: makes a matrix's tensors and its values, as those of ``support.packed_models``.
        dtype: of what is not quantized.
        by_itself: whether transformers opens the folder itself, and not the float32 one.
        extra: further tensors.
        built: what else the row is told.
    """
    random = np.random.RandomState(1)
    plain, stored = {}, []
    for name, given in random_weights(config).items():
        if "_proj.weight" in name:
            made, values = parts(random, *given.shape)
            prefix = name.removesuffix(".weight")
            stored += [_stored(f"{prefix}.{part}", array) for part, array in made.items()]
        else:
            array = mx.array(given).astype(getattr(mx, dtype))
            values = np.array(array.astype(mx.float32))
            code = {"float16": "F16", "bfloat16": "BF16"}[dtype]
            data = np.array(array.view(mx.uint16)).tobytes()
            stored.append(TensorData(name, code, given.shape, data))
        plain[name] = values
    stored += [_stored(name, array) for name, array in (extra or {}).items()]

    def save(folder, _, dtype):
        write_tensors(folder / "model.safetensors", stored, metadata={"format": "pt"})

    exact = write(path.parent / "float32", config, files, weights=plain, dtype="float32")
    write(path, config | {"quantization_config": block}, files, weights={}, save=save)
    if by_itself:
        exact = path
    return Built(path=path, theirs=exact, runs=False, keeps_codes=True, **built)


def _stored(name, array):
    if isinstance(array, tuple):
        return TensorData(name, *array)
    content = np.ascontiguousarray(array).tobytes()
    return TensorData(name, CODES[array.dtype.name], array.shape, content)
