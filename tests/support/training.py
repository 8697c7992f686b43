"""Tiny models that are trained, what they are trained on, and how derivatives are checked."""

import mlx.core as mx
import numpy as np
from support.tiny import LLAMA, TEXTS, write_model

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.settings import LoadSettings
from edgellm.training.kept_inputs import InputsOnDisk
from edgellm.training.low_rank import LoraSettings, targets_named
from edgellm.training.micro_batch import NOT_ASKED, TrainingSequence, token_ids
from edgellm.training.trained_model import LayersInMemory, OpenModel

LORA = LoraSettings(rank=4, alpha=8, dropout=0.0, targets=targets_named("all"))


def in_four_bits(folder, config=LLAMA):
    """Return the folder of a new model in 4 bits."""
    source = write_model(folder / "source", config)
    convert(source, folder / "four", bits=4, group_size=32)
    return folder / "four"


def write_texts(path):
    """Write a file of texts, with the mark between them that trainers take."""
    path.write_text("\n<|endoftext|>\n".join(TEXTS))
    return path


def open_training(
    folder,
    *,
    pinned=(),
    buffers=2,
    lora=LORA,
    activations="float",
    threads=None,
    recompute=True,
    on_disk=0,
):
    """A model that is open for training; of ``on_disk`` layers kept inputs are in a file."""
    settings = LoadSettings(activations=activations, threads=threads)
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
        made.append(TrainingSequence(token_ids(tokens), token_ids(targets), number))
    return made


def directions(changes, only="", seed=1):
    """Normal draws beside numbers; ``only`` beside those whose names end so."""
    draws = np.random.default_rng(seed)
    return [
        {
            name: mx.array(draws.standard_normal(array.shape).astype(np.float32))
            for name, array in change.items()
            if name.endswith(only)
        }
        for change in changes
    ]


def along(changes, ways, step):
    """Numbers that have taken a step along directions."""
    return [
        {name: array + step * way[name] if name in way else array for name, array in change.items()}
        for change, way in zip(changes, ways, strict=True)
    ]


def moved(changes, by):
    """Numbers in another place, by normal draws: none is 0."""
    return along(changes, directions(changes), by)


def numbers_of(run):
    """All numbers that a run has learned."""
    return [array for change in run.trainer.numbers for array in change.values()]


def are_equal(one, two):
    """Whether numbers, or derivatives, are the same bits."""
    return all(
        part.keys() == same.keys()
        and all(mx.array_equal(array, same[name]) for name, array in part.items())
        for part, same in zip(one, two, strict=True)
    )


def are_near(one, two):
    """Whether derivatives differ by rounding alone: few rows take other kernels than many."""
    return all(
        mx.allclose(array, same[name], rtol=0, atol=1e-4 * float(mx.abs(array).max().item()))
        for part, same in zip(one, two, strict=True)
        for name, array in part.items()
    )


def slopes(loss_at, numbers, derivatives, only=""):
    """The slope of a loss along random directions: as derivatives say, and as differences do.

    Args:
        loss_at: returns the loss of numbers.
        numbers: at which derivatives were taken.
        derivatives: of the loss.
        only: numbers whose names end so move.
    """
    step = 1e-3
    ways = directions(numbers, only, seed=5)
    before, after = (loss_at(along(numbers, ways, factor)) for factor in (-step, step))
    told = sum(
        float((by[name] * way[name]).sum().item())
        for by, way in zip(derivatives, ways, strict=True)
        for name in way
    )
    return told, (after - before) / (2 * step)


def torch_loss(model, asked):
    """The mean loss of sequences as torch and transformers have it, to be differentiated."""
    import torch

    total = 0
    for one in asked:
        logits = model(torch.tensor([one.tokens])).logits[0]
        targets = torch.tensor(one.targets)
        chosen = targets >= 0
        total = total + torch.nn.functional.cross_entropy(
            logits[chosen], targets[chosen], reduction="sum"
        )
    return total / sum(one.asked for one in asked)
