"""Dropout by counter: masks follow from the seed and from places alone."""

# T tokens, I inputs of a matrix

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.checkpoint.model_config import ModelConfig
from edgellm.training.low_rank import LoraSettings
from edgellm.training.micro_batch import MicroBatch
from edgellm.training.operations.adapted_product import Kept


class Dropout:
    """Masks that follow from seed, step, layer, matrix and sequence.

    So a layer that is computed again sees the same ones, and so does a step that is cut into other
    micro-batches, or a run that goes on.

    Args:
        config: of the model.
        settings: what is learned.
        seed: of the run.
    """

    def __init__(self, config: ModelConfig, settings: LoraSettings, seed: int) -> None:
        shapes = config.tensor_shapes()
        self._inputs = {target: shapes[f"{target}.weight"][1] for target in settings.targets}
        self._dropout = settings.dropout
        self._seed = seed
        self.step: int = 0

    def __call__(self, layer: int, batch: MicroBatch) -> Kept:
        """Return for each target what its inputs (1, T, I) are multiplied by."""
        if not self._dropout:
            return {}
        kept = {}
        for place, (target, features) in enumerate(self._inputs.items()):
            masks = []
            for sequence in batch.sequences:
                key = [
                    (self._seed << 32) + self.step,
                    (layer << 40) + (place << 32) + sequence.number,
                ]
                masks.append(self._mask(key, (len(sequence.tokens), features)))
            kept[target] = mx.array(np.concatenate(masks))[None]
        return kept

    def _mask(self, key: Sequence[int], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        # 16 random bits a number: of a dropout of 0.05, 0.049988 is meant
        draws = np.random.Generator(np.random.Philox(key=key)).bytes(2 * math.prod(shape))
        stays = np.frombuffer(draws, np.uint16) >= round(self._dropout * 65536)
        return (stays * np.float32(1 / (1 - self._dropout))).reshape(shape)
