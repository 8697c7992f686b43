"""transformers on the same weights, dequantized, as the bench's backend ``transformers``."""

# B sequences at once, L tokens, V words of the vocabulary

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edgellm.bench.backends.registry import RuntimeSettings
from edgellm.bench.machine.rates import Rates
from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import Checkpoint, TensorGroup, read_checkpoint
from edgellm.reading.disk_reader import DiskReader


class TransformersRuntime:
    """A folder's weights in a causal model of transformers, on the GPU that torch has, or on the processor.

    A processor computes in float32 and a GPU in bfloat16 unless ``dtype`` says otherwise. The
    attention is transformers' own default, its cache grows, and nothing is compiled: what a person
    gets who calls ``generate``.
    """

    def __init__(self, model: str, settings: RuntimeSettings) -> None:
        import torch

        self._torch: Any = torch
        gpu = torch.cuda.is_available()
        if settings.threads and not gpu:
            torch.set_num_threads(settings.threads)
        dtype = settings.dtype or ("bfloat16" if gpu else "float32")
        self._place = "cuda" if gpu else "cpu"
        checkpoint = read_checkpoint(Path(model))
        self._model = _filled(checkpoint, getattr(torch, dtype), self._place)
        self._cache: Any = None
        self._token: Any = None
        self.device = torch.cuda.get_device_name() if gpu else _processor()
        self.arithmetic = f"torch {self._place}, {dtype}"
        config = checkpoint.config
        table = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
        item = torch.finfo(getattr(torch, dtype)).bits // 8
        total = sum(parameter.numel() for parameter in self._model.parameters())
        self.weight_bytes_per_token: int | None = (total - table) * item

    def begin(self, *, batch: int, capacity: int) -> None:
        """Make an empty cache; it grows by itself, and takes any batch."""
        del batch, capacity
        from transformers import DynamicCache

        self._cache = DynamicCache(config=self._model.config)

    def prefill(self, tokens: npt.NDArray[np.int64]) -> None:
        """Send tokens (B, L) through the model."""
        self._step(self._torch.from_numpy(np.ascontiguousarray(tokens)).to(self._place))
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
        """Logits (L, V) after each token."""
        with self._torch.inference_mode():
            found = self._model(
                input_ids=self._torch.tensor([list(tokens)], device=self._place), use_cache=False
            )
        logits: npt.NDArray[np.float32] = found.logits[0].float().cpu().numpy()
        return logits

    def close(self) -> None:
        """Free the model."""
        self._model = self._cache = self._token = None

    def measure_rates(self) -> Rates | None:
        """Of the GPU; None on a processor."""
        if self._place == "cpu":
            return None
        from edgellm.bench.machine.cuda_rates import cuda_rates

        return cuda_rates()

    def peak_device_memory(self) -> int | None:
        """What torch has held of the GPU's memory at the most; None on a processor."""
        return None if self._place == "cpu" else int(self._torch.cuda.max_memory_allocated())

    def _step(self, ids: Any) -> None:
        with self._torch.inference_mode():
            found = self._model(
                input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1
            )
            self._token = found.logits[:, -1].argmax(-1, keepdim=True)

    def _wait(self) -> None:
        if self._place == "cuda":
            self._torch.cuda.synchronize()


def _filled(checkpoint: Checkpoint, dtype: Any, place: str) -> Any:
    """The model, its weights copied in one part after another."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(checkpoint.folder.path)
    for name in ("quantization", "quantization_config"):  # of MLX, which transformers does not know
        if hasattr(config, name):
            delattr(config, name)
    config.tie_word_embeddings = checkpoint.config.tie_word_embeddings
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.to_empty(device=place)
    _make_rotary(model, config, place)
    model.tie_weights()
    wanted = dict(model.named_parameters())
    reader = DiskReader()
    try:
        with torch.no_grad():
            for name, values in _tensors(checkpoint, reader):
                wanted[name].copy_(torch.from_numpy(values))
    finally:
        reader.close()
    return model.eval()


def _make_rotary(model: Any, config: Any, place: str) -> None:
    """The frequencies of positions are in no file: the module that was made without memory is made again with it."""
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(place)


def _tensors(
    checkpoint: Checkpoint, reader: DiskReader
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Every parameter by its name, in float32, dequantized."""
    for index, layer in enumerate(checkpoint.layers):
        yield from _of_part(layer, f"model.layers.{index}.", reader)
    yield from _of_part(checkpoint.embed_tokens, "model.embed_tokens.", reader)
    yield from _of_part(checkpoint.norm, "model.norm.", reader)
    if checkpoint.lm_head is not None:
        yield from _of_part(checkpoint.lm_head, "lm_head.", reader)


def _of_part(
    part: TensorGroup, prefix: str, reader: DiskReader
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    import mlx.core as mx

    slot = WeightBuffer(part.layout.nbytes)
    reader.submit(part.extents, slot.memory).wait()
    arrays = slot.arrays(part.layout)
    for name in part.tensors:  # and not the stacks, which show the same memory
        array = arrays[name]
        base, _, last = name.rpartition(".")
        form = part.quantizations.get(base)
        if last in {"scales", "biases"} and form is not None:
            continue
        if form is not None and last == "weight":
            stem = f"{base}." if base else ""
            scales, biases = (
                arrays[f"{stem}{kind}"].astype(mx.float32) for kind in ("scales", "biases")
            )
            array = mx.dequantize(array, scales, biases, group_size=form.group_size, bits=form.bits)
        yield prefix + name, np.array(array.astype(mx.float32))


def _processor() -> str:
    from edgellm.device import machine as device

    return device.chip_name()
