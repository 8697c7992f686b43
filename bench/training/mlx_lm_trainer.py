"""mlx-lm's own trainer, that of ``mlx_lm.lora``, on the same folder and the same tokens."""

# B sequences, L tokens of the longest one

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from edgellm.bench.backends.mlx_lm import DTYPES, corrected_settings
from edgellm.bench.training.task import Task, longest
from edgellm.bench.training.technique import FULL
from edgellm.bench.training.trainer import Report, Sizes
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.device import machine
from edgellm.files.locations import temporary_folder
from edgellm.training.low_rank import initial_changes
from edgellm.training.micro_batch import NOT_ASKED, TrainingSequence

PADDED_TO = 32
"""Lengths that mlx-lm's own batches are padded to, since each new one is compiled again."""


class MLXLMTrainer:
    """``mlx_lm.tuner.trainer.train`` with AdamW, and our batches and masks.

    Its own batches would be others, and its own mask learns a padding token of each sequence. The
    optimizer corrects its moments' bias, as the others do and as mlx-lm's own default does not.
    """

    def __init__(self, task: Task) -> None:
        import mlx.optimizers as optim
        from mlx_lm.utils import load_model

        self._task = task
        folder = Path(task.folder)
        checkpoint = read_checkpoint(folder)
        dtype = task.technique.dtype or (None if machine.has_gpu() else "float32")
        self._model: Any = load_model(folder, model_config=corrected_settings(checkpoint))[0]
        if dtype is not None:
            self._model.set_dtype(DTYPES[dtype])
        self._model.freeze()
        if task.technique.method == FULL:
            self._model.unfreeze()
        else:
            _add_changes(self._model, task, checkpoint.config)
        mx.eval(self._model.parameters())
        self._optimizer: Any = optim.AdamW(
            learning_rate=task.settings.rate,
            betas=[0.9, 0.999],
            eps=1e-8,
            weight_decay=task.settings.decay,
            bias_correction=True,
        )
        self.device: str = machine.chip_name()
        self.arithmetic: str = f"mlx {machine.backend_name()}, {dtype or 'as stored'}"
        self.memory: int | None = None
        self._peak = 0

    @staticmethod
    def warm_up(task: Task) -> None:
        """Import the trainer, and have MLX compute something small."""
        del task
        import_module("mlx_lm.tuner.trainer")
        mx.eval(mx.ones((8, 8)) @ mx.ones((8, 8)))

    def train(self, report: Report) -> None:
        """Take all steps."""
        from mlx_lm.tuner.trainer import TrainingArgs, train

        task, parts = self._task, self._task.technique.accumulation
        steps = task.settings.steps

        def batches(**_: object) -> Iterator[tuple[mx.array, mx.array]]:
            for number in range(steps):
                yield from map(_padded, task.parts(number))

        mx.reset_peak_memory()
        with temporary_folder() as scratch:
            train(
                self._model,
                self._optimizer,
                train_dataset=task.sequences,
                args=TrainingArgs(
                    batch_size=task.settings.batch // parts,
                    iters=steps * parts,
                    steps_per_report=parts,
                    steps_per_save=steps * parts + 1,
                    max_seq_length=longest(task.sequences) + PADDED_TO,
                    adapter_file=scratch / "adapters.safetensors",
                    grad_checkpoint=task.technique.checkpointing,
                    grad_accumulation_steps=parts,
                ),
                loss=_loss,
                iterate_batches=batches,
                training_callback=_Steps(report, parts),
            )
        self._peak = mx.get_peak_memory()

    def loss_after(self) -> float:
        """Return the loss of the first step's sequences."""
        total, asked = 0.0, 0.0
        for part in self._task.parts(0):
            loss, count = _loss(self._model, *_padded(part))
            total += float(np.array(loss * count))
            asked += float(np.array(count))
        return total / asked

    def sizes(self) -> Sizes:
        """Return the bytes of the model's arrays and of the optimizer's."""
        learned = _arrays(self._model.trainable_parameters())
        held = _arrays(self._model.parameters())
        state = _arrays(self._optimizer.state)
        return Sizes(
            checkpointing=self._task.technique.checkpointing,
            numbers=sum(array.size for array in learned),
            weights=sum(array.nbytes for array in held),
            gradients=sum(array.nbytes for array in learned),
            optimizer=sum(array.nbytes for array in state),
        )

    def device_peak(self) -> int | None:
        """Return None: a process's footprint counts Metal's memory."""
        return None

    def allocator_peak(self) -> int | None:
        """Return the most that MLX had allocated in training."""
        return self._peak

    def close(self) -> None:
        """Free the model."""
        self._model = self._optimizer = None
        mx.clear_cache()


class _Steps:
    """Hands each step of mlx-lm's trainer on; it is told of no other than training losses."""

    def __init__(self, report: Report, parts: int) -> None:
        self._report = report
        self._parts = parts

    def on_train_loss_report(self, train_info: Mapping[str, Any]) -> None:
        """Take a step's figures: the rate is of parts, and the loss the mean of theirs."""
        seconds = self._parts / train_info["iterations_per_second"]
        self._report(train_info["train_loss"], seconds)


def _arrays(tree: Any) -> list[mx.array]:
    """Return the arrays of nested dictionaries and lists."""
    named: Any = tree_flatten(tree)
    return [array for _, array in named]


def _add_changes(model: Any, task: Task, config: Any) -> None:
    """Put low-rank changes into a model, as mlx-lm does, with edgellm's first numbers."""
    from mlx_lm.tuner.utils import linear_to_lora_layers

    lora = task.lora
    wanted = {
        "rank": lora.rank,
        "scale": lora.alpha / lora.rank,
        "dropout": lora.dropout,
        "keys": list(lora.targets),
    }
    linear_to_lora_layers(model, len(model.layers), wanted)
    first = initial_changes(config, lora, task.settings.seed)
    for layer, change in zip(model.layers, first, strict=True):
        modules = dict(layer.named_modules())
        for target in lora.targets:
            modules[target].lora_a = change[f"{target}.lora_A"].T
            modules[target].lora_b = change[f"{target}.lora_B"].T


def _padded(sequences: Sequence[TrainingSequence]) -> tuple[mx.array, mx.array]:
    """Return tokens (B, L) and targets (B, L) of sequences, padded."""
    length = PADDED_TO * -(-longest(sequences) // PADDED_TO)
    tokens = np.zeros((len(sequences), length), np.int32)
    targets = np.full((len(sequences), length), NOT_ASKED, np.int32)
    for row, one in enumerate(sequences):
        tokens[row, : len(one.tokens)] = one.tokens
        targets[row, : len(one.targets)] = one.targets
    return mx.array(tokens), mx.array(targets)


def _loss(model: Any, tokens: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """Return the mean loss of what is asked, and how much that is."""
    from mlx.nn.losses import cross_entropy

    asked = targets != NOT_ASKED
    losses = cross_entropy(model(tokens), mx.maximum(targets, 0)) * asked
    count = asked.sum()
    return losses.astype(mx.float32).sum() / count, count
