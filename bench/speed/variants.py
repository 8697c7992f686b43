"""The file or folder that a backend opens: the model, other bits of it, or a GGUF.

What has to be made is made once, by the command line's own ``convert``, ``synth`` and ``export``,
and kept in the cache folder.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.device import machine
from edgellm.errors import BackendError, ModelNotFoundError
from edgellm.files.given_path import given_path
from edgellm.files.locations import cache_folder, make_private_folder
from edgellm.files.refusals import write_error
from edgellm.hub.resolve import locate
from edgellm.models.presets import SHAPES
from edgellm.models.through_mlx_lm.checkpoint import (
    MLXLMCheckpoint,
    read_any_checkpoint,
)
from edgellm.settings import DEFAULT_MODEL

GGUF = ".gguf"

READS_GGUF = frozenset({"llama.cpp", "llama.cpp-plain"})

SHAPE_MEMORY = ((24e9, "llama-2-7b"), (3e9, "tinyllama-1.1b"), (0, "qwen2.5-0.5b"))
"""The shape that is measured by default, by the least memory of the machine.

The largest takes minutes without a GPU, whatever the memory.
"""


@dataclass(frozen=True, slots=True)
class ModelVariant:
    """The file or folder that a backend opens, and what is known of it before.

    Attributes:
        path: the folder or file; None of a model on a server.
        bits: bits of most weights; None where a file does not tell, as for all below.
        vocabulary: tokens that the model knows.
        context: tokens that the model's config has positions for.
        nbytes: bytes of the weights' files.
        layer_parameters: weights of the matrices in all layers.
        head_parameters: weights of the output matrix.
    """

    path: Path | None = None
    bits: int | None = None
    vocabulary: int | None = None
    context: int | None = None
    nbytes: int | None = None
    layer_parameters: int | None = None
    head_parameters: int | None = None

    def flops(self, *, prompt: bool, tokens: int, batch: int) -> float | None:
        """Return the operations in matrix products of ``tokens`` of each sequence.

        A multiplication and an addition per weight and token; attention is left out. A prompt needs
        the output matrix once a sequence.
        """
        if self.layer_parameters is None or self.head_parameters is None:
            return None
        outputs = 1 if prompt else tokens
        return 2.0 * batch * (self.layer_parameters * tokens + self.head_parameters * outputs)


def default_models() -> list[str]:
    """Return the bundled model, and a shape that fits this machine."""
    memory: float = machine.read_memory().total
    if not machine.has_gpu():
        memory = min(memory, 23e9)
    return [DEFAULT_MODEL, next(shape for least, shape in SHAPE_MEMORY if memory >= least)]


def prepare_variant(model: str, bits: int | None, backend: str) -> ModelVariant:
    """Return what ``backend`` opens for a model in this many bits, made where it is not there.

    Raises:
        ModelNotFoundError, DownloadError, FormatError, UnsupportedModelError: the model cannot be
            had.
        BackendError: this backend cannot open it, or it cannot be had in these bits.
    """
    if Path(model).suffix == GGUF:
        return _gguf_variant(given_path(model), backend)
    folder = _in_bits(_folder(model), bits)
    checkpoint = read_any_checkpoint(folder)
    config = checkpoint.config
    path, nbytes = folder, checkpoint.nbytes
    if isinstance(checkpoint, MLXLMCheckpoint):
        if backend in READS_GGUF:
            raise BackendError(
                f"edgellm exports no model of type {config.model_type}",
                hint=f"give {backend} a GGUF file of it",
            )
        # which of its experts a token goes through, no shape tells
        return ModelVariant(
            path=path,
            bits=checkpoint.usual_bits,
            vocabulary=config.vocab_size,
            context=config.max_position_embeddings,
            nbytes=nbytes,
        )
    if backend in READS_GGUF:
        path = _exported(folder, checkpoint)
        nbytes = path.stat().st_size
    return ModelVariant(
        path=path,
        bits=checkpoint.usual_bits,
        vocabulary=config.vocab_size,
        context=config.max_position_embeddings,
        nbytes=nbytes,
        layer_parameters=_layer_parameters(checkpoint),
        head_parameters=config.vocab_size * checkpoint.config.hidden_size,
    )


def variants_folder() -> Path:
    """Return the folder of the models that the bench has made."""
    return cache_folder() / "bench"


def make_model(made: Path, *arguments: str) -> Path:
    """Run a command of ours that makes ``made``, in a process of its own, unless it is there.

    Returns:
        The path ``made``, whoever has made it: another run may have been faster.

    Raises:
        BackendError: it has failed; it leaves nothing at ``made`` then.
        ConversionError: its folder cannot be made.
    """
    if made.exists():
        return made
    try:
        make_private_folder(made.parent)
    except OSError as error:
        raise write_error(made, error) from error
    try:
        subprocess.run(
            [sys.executable, "-m", "edgellm", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
            text=True,
            errors="replace",
        )
    except subprocess.CalledProcessError as error:
        if made.exists():
            return made
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        lines.insert(0, f"status {error.returncode}")
        reason = next((line for line in lines if line.startswith("error: ")), lines[-1])
        raise BackendError(
            f"edgellm {arguments[0]} {arguments[1]} failed: {reason.removeprefix('error: ')}",
            hint="run that command by itself: it may say more",
        ) from error
    return made


def _gguf_variant(path: Path, backend: str) -> ModelVariant:
    if backend not in READS_GGUF:
        raise BackendError(
            f"{backend} opens no GGUF file", hint=f"convert it first: edgellm convert {path} FOLDER"
        )
    if not path.is_file():
        raise ModelNotFoundError(f"there is no file {path}", hint="check how it is written")
    return ModelVariant(path=path, nbytes=path.stat().st_size)


def _folder(model: str) -> Path:
    """Return the folder of a model; for the name of a shape one with random weights."""
    if model not in SHAPES or given_path(model).exists():
        return locate(model)
    made = variants_folder() / f"{model}-4bit"
    return make_model(made, "synth", model, str(made), "--bits", "4")


def _in_bits(folder: Path, bits: int | None) -> Path:
    if bits is None:
        return folder
    checkpoint = read_any_checkpoint(folder)
    stored = checkpoint.usual_bits
    if bits == stored:
        return folder
    if stored != 16:
        raise BackendError(
            f"{folder.name} is stored with {stored} bits",
            hint="give a 16-bit model for other bits of it",
        )
    made = variants_folder() / f"{folder.name}-{fingerprint(checkpoint)[:8]}-{bits}bit"
    return make_model(made, "convert", str(folder), str(made), "--bits", str(bits))


def _exported(folder: Path, checkpoint: Checkpoint) -> Path:
    made = variants_folder() / f"{folder.name}-{fingerprint(checkpoint)[:8]}{GGUF}"
    return make_model(made, "export", str(folder), str(made))


def _layer_parameters(checkpoint: Checkpoint) -> int:
    shapes = checkpoint.config.tensor_shapes().values()
    each = sum(shape[0] * shape[1] for shape in shapes if len(shape) == 2)
    return each * checkpoint.config.num_hidden_layers
