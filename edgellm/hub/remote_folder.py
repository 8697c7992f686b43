"""A Hub repository without its weights: headers and config alone, a few hundred KB."""

from __future__ import annotations

from pathlib import Path

from edgellm.checkpoint.folder import CONFIG, ModelFolder
from edgellm.checkpoint.safetensors_file import TensorInfo
from edgellm.errors import ModelNotFoundError
from edgellm.files.strict_json import read_json
from edgellm.hub.client import list_repository, quiet, renamed_error
from edgellm.hub.gguf_files import gguf_models, say_models


def remote_folder(repository: str) -> ModelFolder:
    """Return what is known of a Hub repository before its weights are downloaded, for a plan.

    Raises:
        ModelNotFoundError, DownloadError: as ``hub.download``.
        FormatError: its config is damaged.
    """
    from huggingface_hub import HfApi, hf_hub_download

    try:
        listing = list_repository(repository)
        models = gguf_models(listing.names)
        if models and not any(name.endswith(".safetensors") for name in listing.names):
            raise ModelNotFoundError(
                f"{repository} on the Hub holds GGUF files", hint=say_models(repository, models)
            )
        with quiet():
            config = Path(hf_hub_download(repository, CONFIG))
            metadata = HfApi().get_safetensors_metadata(repository)
    except Exception as error:
        raise renamed_error(error, repository) from error
    tensors = {}
    for file, header in metadata.files_metadata.items():
        for name, tensor in header.tensors.items():
            begin, end = tensor.data_offsets
            shape = tuple(tensor.shape)
            # Offsets count from the end of the header: nothing is read by them.
            tensors[name] = TensorInfo(name, tensor.dtype, shape, Path(file), begin, end - begin)
    return ModelFolder(Path(repository), read_json(config, finite=False), tensors, {})
