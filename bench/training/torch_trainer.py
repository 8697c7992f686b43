"""PEFT, transformers and torch on the same weights and tokens, on a processor or a GPU."""

# B sequences, L tokens of the longest one, V vocabulary

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.bench.training.task import Task, longest
from edgellm.bench.training.technique import CUDA, FULL
from edgellm.bench.training.trainer import Report, Sizes
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.device import machine
from edgellm.errors import BackendError
from edgellm.training.low_rank import initial_changes
from edgellm.training.micro_batch import NOT_ASKED, TrainingSequence

IGNORED = -100
"""The target of a token after which nothing is learned, in torch's losses."""


class TorchTrainer:
    """A plain loop round transformers' model: what PEFT's users write, or have TRL write.

    The loss of a step is the mean over all its learned tokens, however it is cut.
    """

    def __init__(self, task: Task) -> None:
        import torch

        from edgellm.bench.backends.transformers import load_model

        self._torch: Any = torch
        self._task = task
        self._place = _place(task)
        self.device: str = machine.chip_name()
        if self._place == "cuda":
            self.device = str(torch.cuda.get_device_name())
        dtype = task.technique.dtype or ("bfloat16" if self._place == "cuda" else "float32")
        self.arithmetic: str = f"torch {self._place}, {dtype}"
        self.memory: int | None = None
        checkpoint = read_checkpoint(Path(task.folder))
        model = load_model(checkpoint, getattr(torch, dtype), self._place)
        model.config.use_cache = False
        if task.technique.method != FULL:
            model = _with_changes(model, task, checkpoint.config)
        if task.technique.checkpointing:
            model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        self._model: Any = model.train()
        self._learned = [one for one in model.parameters() if one.requires_grad]
        settings = task.settings
        self._optimizer: Any = torch.optim.AdamW(
            self._learned,
            lr=settings.rate,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=settings.decay,
        )
        self._gradients = 0

    @staticmethod
    def warm_up(task: Task) -> None:
        """Import the libraries, and have torch compute and differentiate something small."""
        import torch

        import_module("edgellm.bench.backends.transformers")
        if task.technique.method != FULL:
            import_module("peft")
        place = _place(task)
        if task.settings.threads and place == "cpu":
            torch.set_num_threads(task.settings.threads)
        for dtype in (torch.float32, torch.bfloat16):
            weight = torch.ones((8, 8), dtype=dtype, device=place, requires_grad=True)
            (weight @ weight).sum().backward()

    def train(self, report: Report) -> None:
        """Take all steps."""
        if self._place == "cuda":
            self._torch.cuda.reset_peak_memory_stats()
        for number in range(self._task.settings.steps):
            parts = self._task.parts(number)
            begun = time.perf_counter()
            loss = self._step(parts)
            if self._place == "cuda":
                self._torch.cuda.synchronize()
            report(loss, time.perf_counter() - begun)

    def loss_after(self) -> float:
        """Return the loss of the first step's sequences."""
        parts = self._task.parts(0)
        with self._torch.no_grad():
            total = sum(float(self._summed_loss(part)) for part in parts)
        return total / _asked(parts)

    def sizes(self) -> Sizes:
        """Return the bytes of torch's tensors."""
        held = {id(one): one for one in (*self._model.parameters(), *self._model.buffers())}
        state = [
            value
            for values in self._optimizer.state.values()
            for value in values.values()
            if self._torch.is_tensor(value)
        ]
        return Sizes(
            checkpointing=self._task.technique.checkpointing,
            numbers=sum(one.numel() for one in self._learned),
            weights=sum(one.nbytes for one in held.values()),
            gradients=self._gradients,
            optimizer=sum(one.nbytes for one in state),
        )

    def device_peak(self) -> int | None:
        """Return the most bytes of a GPU's memory that torch had allocated in training."""
        if self._place == "cpu":
            return None
        return int(self._torch.cuda.max_memory_allocated())

    def allocator_peak(self) -> int | None:
        """Return the same; on a processor torch does not count."""
        return self.device_peak()

    def close(self) -> None:
        """Free the model."""
        self._model = self._optimizer = None
        self._learned = []

    def _step(self, parts: Sequence[Sequence[TrainingSequence]]) -> float:
        asked = _asked(parts)
        self._optimizer.zero_grad()
        total = 0.0
        for part in parts:
            loss = self._summed_loss(part) / asked
            loss.backward()
            total += float(loss.detach())
        self._gradients = sum(one.grad.nbytes for one in self._learned if one.grad is not None)
        self._optimizer.step()
        return total

    def _summed_loss(self, sequences: Sequence[TrainingSequence]) -> Any:
        """Return the loss summed over what is asked of sequences, padded to the longest."""
        shape = (len(sequences), longest(sequences))
        tokens, targets = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
        seen = np.zeros(shape, np.int64)
        for row, one in enumerate(sequences):
            length = len(one.tokens)
            tokens[row, :length] = one.tokens
            targets[row, :length] = [IGNORED if t == NOT_ASKED else t for t in one.targets]
            seen[row, :length] = 1
        torch = self._torch
        ids, mask, wanted = (
            torch.from_numpy(array).to(self._place) for array in (tokens, seen, targets)
        )
        logits = self._model(input_ids=ids, attention_mask=mask).logits  # (B, L, V)
        return torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
        )


def _place(task: Task) -> str:
    """Return torch's name of what computes. Raises BackendError."""
    import torch

    if task.technique.backend != CUDA:
        return "cpu"
    if not torch.cuda.is_available():
        raise BackendError(
            "torch finds no NVIDIA GPU here", hint="train on the processor: --backend peft"
        )
    return "cuda"


def _asked(parts: Sequence[Sequence[TrainingSequence]]) -> int:
    return sum(one.asked for part in parts for one in part)


def _with_changes(model: Any, task: Task, config: Any) -> Any:
    """Return PEFT's model of low-rank changes, with edgellm's first numbers."""
    import peft
    import torch

    lora = task.lora
    wanted = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=[target.rpartition(".")[2] for target in lora.targets],
    )
    changed = peft.get_peft_model(model, wanted)
    parameters = dict(changed.named_parameters())
    with torch.no_grad():
        for layer, change in enumerate(initial_changes(config, lora, task.settings.seed)):
            for name, array in change.items():
                key = f"base_model.model.model.layers.{layer}.{name}.default.weight"
                parameters[key].copy_(torch.from_numpy(np.array(array)))
    return changed
