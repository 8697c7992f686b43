"""Tiny models that are trained, and sequences that they are trained on."""

import numpy as np

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.settings import LoadSettings
from edgellm.training.kept_inputs import InputsOnDisk
from edgellm.training.low_rank import LoraSettings, targets_named
from edgellm.training.micro_batch import NOT_ASKED, TrainingSequence
from edgellm.training.trained_model import LayersInMemory, OpenModel

LORA = LoraSettings(rank=4, alpha=8, dropout=0.0, targets=targets_named("all"))


def open_training(
    folder,
    *,
    pinned=(),
    buffers=2,
    lora=LORA,
    activations="float",
    recompute=True,
    on_disk=0,
):
    """A model that is open for training; of ``on_disk`` layers kept inputs are in a file."""
    settings = LoadSettings(activations=activations)
    checkpoint = read_checkpoint(folder)
    memory = LayersInMemory(pinned, buffers, recompute)
    inputs = InputsOnDisk(folder, on_disk, 1 << 20) if on_disk else None
    return OpenModel(checkpoint, lora, memory, settings, inputs=inputs)


def sequences(lengths=(9, 17, 5, 12), vocabulary=300, seed=0):
    """Sequences of random tokens; of each the first third is not learned."""
    draws = np.random.default_rng(seed)
    made = []
    for number, length in enumerate(lengths):
        tokens = draws.integers(5, vocabulary, length).tolist()
        targets = [*tokens[1:], NOT_ASKED]
        targets[: length // 3] = [NOT_ASKED] * (length // 3)
        made.append(TrainingSequence(tuple(tokens), tuple(targets), number))
    return made
