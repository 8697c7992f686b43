"""The file or folder that a backend is to open for a model: the model itself, other bits of it, or its weights as GGUF.

What has to be made is made once, by the command line's own ``convert``, ``synth`` and ``export``,
and kept in the cache folder.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.checkpoint.quantization import Quantization
from edgellm.device import machine as device
from edgellm.errors import BackendError, ModelNotFoundError
from edgellm.files.locations import cache_folder
from edgellm.hub.resolve import locate
from edgellm.models.presets import SHAPES
from edgellm.settings import DEFAULT_MODEL

GGUF = ".gguf"
READS_GGUF = frozenset({"llama.cpp", "llama.cpp-plain"})
SHAPE_MEMORY = ((24e9, "llama-2-7b"), (3e9, "tinyllama-1.1b"), (0, "qwen2.5-0.5b"))
"""By a machine's memory, the shape that is measured; the first is for GPUs alone."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What a backend opens, and what is known of it before.

    Attributes:
        path: the folder or file.
        bits: of most weights; None where a file does not tell.
        vocabulary: tokens that the model knows; None where a file does not tell.
        context: tokens that the model's config has positions for; None where a file does not tell.
        nbytes: of the weights' files.
        layer_parameters: weights of the matrices in all layers.
        head_parameters: of the last product.
    """

    path: Path
    bits: int | None = None
    vocabulary: int | None = None
    context: int | None = None
    nbytes: int | None = None
    layer_parameters: int | None = None
    head_parameters: int | None = None

    def flops(self, *, prompt: bool, tokens: int, batch: int) -> float | None:
        """Operations in matrix products, attention aside; a prompt needs the last product once a sequence."""
        if self.layer_parameters is None or self.head_parameters is None:
            return None
        return (
            2.0
            * batch
            * (self.layer_parameters * tokens + self.head_parameters * (1 if prompt else tokens))
        )


def default_models() -> list[str]:
    """The bundled model, and a shape that fits this machine."""
    memory = (
        device.read_memory().total if device.has_gpu() else min(device.read_memory().total, 23e9)
    )
    return [DEFAULT_MODEL, next(shape for least, shape in SHAPE_MEMORY if memory >= least)]


def variant_of(model: str, bits: int | None, backend: str) -> Variant:
    """What ``backend`` opens for a model in so many bits; it is made where it is not there yet.

    Raises:
        ModelNotFoundError, DownloadError, FormatError, UnsupportedModelError: the model cannot be
        had.
        BackendError: this backend cannot open it, or it cannot be had in these bits.
    """
    if Path(model).suffix == GGUF:
        return _given_file(Path(model).expanduser(), backend)
    folder = _in_bits(_folder(model), bits)
    checkpoint = read_checkpoint(folder)
    path = _exported(folder) if backend in READS_GGUF else folder
    return Variant(
        path=path,
        bits=_bits(checkpoint),
        vocabulary=checkpoint.config.vocab_size,
        context=checkpoint.config.max_position_embeddings,
        nbytes=path.stat().st_size if path.is_file() else checkpoint.nbytes,
        layer_parameters=_products(checkpoint),
        head_parameters=checkpoint.config.vocab_size * checkpoint.config.hidden_size,
    )


def made_folder() -> Path:
    """Where models are kept that the bench has made."""
    return cache_folder() / "bench"


def _given_file(path: Path, backend: str) -> Variant:
    if backend not in READS_GGUF:
        raise BackendError(
            f"{backend} opens no GGUF file", hint=f"convert it first: edgellm convert {path} FOLDER"
        )
    if not path.is_file():
        raise ModelNotFoundError(f"there is no file {path}")
    return Variant(path=path, nbytes=path.stat().st_size)


def _folder(model: str) -> Path:
    """The folder of a model; of a shape's name, random weights of it."""
    if model not in SHAPES or Path(model).exists():
        return locate(model)
    made = made_folder() / f"{model}-4bit"
    if not made.exists():
        run_command(["synth", model, str(made), "--bits", "4"], made)
    return made


def _in_bits(folder: Path, bits: int | None) -> Path:
    if bits is None:
        return folder
    stored = _bits(read_checkpoint(folder))
    if bits == stored:
        return folder
    if stored != 16:
        raise BackendError(
            f"{folder.name} is stored with {stored} bits",
            hint="give a 16-bit model for other bits of it",
        )
    made = made_folder() / f"{folder.name}-{_mark(folder)}-{bits}bit"
    if not made.exists():
        run_command(["convert", str(folder), str(made), "--bits", str(bits)], made)
    return made


def _exported(folder: Path) -> Path:
    made = made_folder() / f"{folder.name}-{_mark(folder)}{GGUF}"
    if not made.exists():
        run_command(["export", str(folder), str(made)], made)
    return made


def run_command(arguments: Sequence[str], made: Path) -> None:
    """A command of our own, in a process of its own; ``made``, which a failed one has left, is removed. Raises BackendError."""
    made.parent.mkdir(parents=True, exist_ok=True)
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
        _remove(made)
        said = [line for line in error.stderr.splitlines() if line.strip()]
        why = next(
            (line for line in said if line.startswith("error: ")), said[-1] if said else ""
        ).removeprefix("error: ")
        raise BackendError(
            f"edgellm {arguments[0]} {arguments[1]} failed: {why or f'status {error.returncode}'}"
        ) from error


def _remove(made: Path) -> None:
    with suppress(OSError):
        if made.is_dir():
            shutil.rmtree(made)
        else:
            made.unlink()


def _mark(folder: Path) -> str:
    """Tells folders of one name apart, and a folder from what it was before."""
    files = sorted(folder.glob("*.safetensors"))
    facts = [
        (
            str(folder.resolve()),
            *((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files),
        )
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:8]


def _bits(checkpoint: Checkpoint) -> int:
    """Of most matrices of the layers; 16 stands for weights that are not quantized."""
    forms: list[Quantization | None] = [
        form for layer in checkpoint.layers for form in layer.quantizations.values()
    ]
    counts = {
        bits: sum((form.bits if form else 16) == bits for form in forms)
        for bits in (2, 3, 4, 5, 6, 8, 16)
    }
    return max(counts, key=lambda bits: counts[bits])


def _products(checkpoint: Checkpoint) -> int:
    shapes = checkpoint.config.tensor_shapes().values()
    each = sum(shape[0] * shape[1] for shape in shapes if len(shape) == 2)
    return each * checkpoint.config.num_hidden_layers
