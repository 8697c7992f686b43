"""A GGUF file on the Hub before it is downloaded: from its header, the folder made of it."""

from __future__ import annotations

from pathlib import Path

from edgellm.checkpoint.checkpoint import Checkpoint, checkpoint_of
from edgellm.checkpoint.folder import ModelFolder
from edgellm.checkpoint.safetensors_file import TensorInfo
from edgellm.converters.gguf.header_reader import MAX_HEADER_BYTES
from edgellm.converters.gguf.source import GgufSource
from edgellm.converters.tensors.recipe import make_recipe
from edgellm.converters.tensors.settings import UNQUANTIZED_BITS, ConversionSettings
from edgellm.errors import EdgeLLMError
from edgellm.files.locations import temporary_folder
from edgellm.hub.download import GgufPlace
from edgellm.hub.remote_file import fetch_beginning

BEGINNINGS = (8 << 20, 24 << 20, MAX_HEADER_BYTES)
"""Bytes of each file that are tried in turn; the header of a Llama 3 takes 8 MB."""


def preview_gguf(place: GgufPlace) -> Checkpoint:
    """Return what is known of the model folder that a GGUF file becomes, for a plan.

    Raises:
        ModelNotFoundError, DownloadError: as ``hub.download``.
        FormatError, UnsupportedModelError, TokenizerError, ReadError: as ``convert``.
        ConversionError: no temporary file can be written.
    """
    if place.folder is not None:
        return _planned(GgufSource(place.folder / place.files[0]), place)
    with temporary_folder() as folder:
        for nbytes in BEGINNINGS:
            files = [folder / Path(file).name for file in place.files]
            wholes = [
                fetch_beginning(place.repository, name, file, nbytes)
                for name, file in zip(place.files, files, strict=True)
            ]
            try:
                return _planned(GgufSource(files[0]), place)
            except EdgeLLMError:  # the header may go on
                if nbytes == MAX_HEADER_BYTES or all(wholes):
                    raise
    raise AssertionError("the last beginning returns or raises")


def as_it_is(source: GgufSource) -> ConversionSettings:
    """Return the settings that keep a file's numbers: who names a 16-bit file wants 16 bits."""
    if source.forms or source.config.get("quantization"):
        return ConversionSettings()
    return ConversionSettings(bits=UNQUANTIZED_BITS)


def _planned(source: GgufSource, place: GgufPlace) -> Checkpoint:
    """Return the checkpoint of the folder that a source becomes, from its shapes."""
    recipe = make_recipe(source, as_it_is(source))
    tensors = {}
    for file in recipe.files:
        offset = 0
        for tensor in file.tensors:
            place_of = Path(file.name), offset, tensor.nbytes
            tensors[tensor.name] = TensorInfo(tensor.name, tensor.dtype, tensor.shape, *place_of)
            offset += tensor.nbytes
    folder = Path(place.repository) / place.files[0]
    return checkpoint_of(ModelFolder(folder, recipe.config, tensors, {}))
