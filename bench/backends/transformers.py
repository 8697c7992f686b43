"""The backend ``transformers``: transformers on the same weights, dequantized."""

# B sequences at once, L tokens, V words of the vocabulary

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from edgellm.bench.backends.registry import RuntimeSettings
from edgellm.bench.machine.rates import Rates
from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup, read_checkpoint
from edgellm.device import machine
from edgellm.reading.disk_reader import DiskReader


class TransformersRuntime:
    """A folder's weights in a causal model of transformers, on torch's GPU or the processor.

    A processor computes in float32 and a GPU in bfloat16 unless ``dtype`` says otherwise. The
    attention is transformers' own default, its cache grows, and nothing is compiled: what a person
    gets who calls ``generate``.
    """

    def __init__(self, model: str, settings: RuntimeSettings) -> None:
        import torch

        self._torch: Any = torch
        if torch.cuda.is_available():
            self._device, self.device = "cuda", str(torch.cuda.get_device_name())
            dtype = settings.dtype or "bfloat16"
        else:
            self._device, self.device = "cpu", machine.chip_name()
            dtype = settings.dtype or "float32"
            if settings.threads:
                torch.set_num_threads(settings.threads)
        checkpoint = read_checkpoint(Path(model))
        self._model = load_model(checkpoint, getattr(torch, dtype), self._device)
        self._cache: Any = None
        self._token: Any = None
        self.arithmetic: str = f"torch {self._device}, {dtype}"
        config = checkpoint.config
        read_parameters = sum(parameter.numel() for parameter in self._model.parameters())
        if not config.tie_word_embeddings:  # the embedding is not the head too
            read_parameters -= config.vocab_size * config.hidden_size
        item_bytes = torch.finfo(getattr(torch, dtype)).bits // 8
        self.weight_bytes_per_token: int | None = read_parameters * item_bytes

    def begin(self, *, batch: int, capacity: int) -> None:
        """Make an empty cache; it grows by itself, and takes any batch."""
        del batch, capacity
        from transformers import DynamicCache

        self._cache = DynamicCache(config=self._model.config)

    def prefill(self, tokens: npt.NDArray[np.int64]) -> None:
        """Append tokens (B, L) to the sequences."""
        self._step(self._torch.from_numpy(np.ascontiguousarray(tokens)).to(self._device))
        self._wait()

    def decode(self, count: int) -> None:
        """Take greedy steps."""
        for _ in range(count):
            self._step(self._token)
        self._wait()

    def last_tokens(self) -> list[int]:
        """Return the newest token of each sequence."""
        return cast("list[int]", self._token[:, 0].tolist())

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the logits (L, V) after each token of one sequence, from empty caches."""
        with self._torch.inference_mode():
            ids = self._torch.tensor([list(tokens)], device=self._device)
            output = self._model(input_ids=ids, use_cache=False)
        logits: npt.NDArray[np.float32] = output.logits[0].float().cpu().numpy()
        return logits

    def close(self) -> None:
        """Free the model."""
        self._model = self._cache = self._token = None

    def measure_rates(self) -> Rates | None:
        """Read and multiply on the GPU for about a second; None on a processor."""
        if self._device == "cpu":
            return None
        from edgellm.bench.machine.cuda_rates import cuda_rates

        return cuda_rates()

    def peak_device_memory(self) -> int | None:
        """Return the most bytes of the GPU's memory that torch has held; None on a processor."""
        if self._device == "cpu":
            return None
        return int(self._torch.cuda.max_memory_allocated())

    def _step(self, ids: Any) -> None:
        with self._torch.inference_mode():
            output = self._model(
                input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1
            )
            self._token = output.logits[:, -1].argmax(-1, keepdim=True)

    def _wait(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.synchronize()


def load_model(checkpoint: Checkpoint, dtype: Any, device: str) -> Any:
    """Return the model with a folder's weights, copied into it one tensor group after another."""
    import torch
    import transformers

    # not the folder's own: the tensors are called as the family that it runs as has them
    said = dict(checkpoint.folder.config)
    config = transformers.AutoConfig.for_model(said.pop("model_type"), **said)
    for name in ("quantization", "quantization_config"):  # of MLX, which transformers does not know
        if hasattr(config, name):
            delattr(config, name)
    config.tie_word_embeddings = checkpoint.config.tie_word_embeddings
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.to_empty(device=device)
    # its frequencies are in no file: made again, now that there is memory for them
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
    model.tie_weights()
    parameters = dict(model.named_parameters())
    with closing(DiskReader()) as reader, torch.no_grad():
        for name, values in _tensors(checkpoint, reader):
            parameters[name].copy_(torch.from_numpy(values))
    return model.eval()


def _tensors(
    checkpoint: Checkpoint, reader: DiskReader
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield every parameter's name and its numbers, dequantized."""
    for index, layer in enumerate(checkpoint.layers):
        yield from _group_tensors(layer, f"model.layers.{index}.", reader)
    yield from _group_tensors(checkpoint.embed_tokens, "model.embed_tokens.", reader)
    yield from _group_tensors(checkpoint.norm, "model.norm.", reader)
    if checkpoint.lm_head is not None:
        yield from _group_tensors(checkpoint.lm_head, "lm_head.", reader)


def _group_tensors(
    group: TensorGroup, prefix: str, reader: DiskReader
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    buffer = WeightBuffer(group.layout.nbytes)
    reader.submit(group.extents, buffer.memory).wait()
    arrays = buffer.arrays(group.layout)
    for name in group.tensors:  # and not the stacks, which show the same memory
        array = arrays[name]
        layer, _, kind = name.rpartition(".")
        form = group.quantizations.get(layer)
        if form is not None and kind in {"scales", "biases"}:
            continue
        if form is not None and kind == "weight":
            stem = name.removesuffix("weight")
            scales = arrays[f"{stem}scales"].astype(mx.float32)
            biases = arrays[f"{stem}biases"].astype(mx.float32)
            array = mx.dequantize(array, scales, biases, **form.as_config())
        yield prefix + name, np.array(array.astype(mx.float32))
