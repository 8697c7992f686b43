"""Model repositories on the Hugging Face Hub, downloaded once into its cache."""

from __future__ import annotations

from pathlib import Path

from edgellm.errors import DownloadError, EdgeLLMError, ModelNotFoundError
from edgellm.files.refusals import NO_SPACE
from edgellm.files.strict_json import quoted

# Patterns of what is fetched from a repository: data, never a program.
FILES = ("*.json", "*.jinja", "tokenizer.model", "merges.txt", "LICENSE*", "NOTICE*", "USE_POLICY*")
WEIGHTS = "model*.safetensors"
TORCH_WEIGHTS = "pytorch_model*.bin"
META_WEIGHTS = "consolidated*.pth"


def download(repository: str, *, revision: str | None = None, torch_files: bool = False) -> Path:
    """Return the folder of a Hub repository, fetched if it is not in the cache.

    ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` are huggingface-hub's own, and
    respected.

    Args:
        repository: ``owner/name``.
        revision: a branch, tag or commit; None: the main branch.
        torch_files: whether PyTorch's weight files will do where there is no safetensors, Hugging
            Face's or Meta's.

    Raises:
        ModelNotFoundError: the repository or revision does not exist, or holds no weights of a kind
            we read.
        DownloadError: it is gated, the Hub cannot be reached or refuses, or the disk is full.
    """
    folder = _snapshot(repository, revision, [*FILES, WEIGHTS])
    if any(folder.glob(WEIGHTS)):
        return folder
    if not torch_files:
        raise ModelNotFoundError(
            f"{repository} on the Hub holds no {WEIGHTS}",
            hint=f"convert it first: edgellm convert {repository} FOLDER",
        )
    for weights in (TORCH_WEIGHTS, META_WEIGHTS):
        folder = _snapshot(repository, revision, [*FILES, weights])
        if any(folder.glob(weights)):
            return folder
    raise ModelNotFoundError(
        f"{repository} on the Hub holds neither {WEIGHTS} nor {TORCH_WEIGHTS} nor {META_WEIGHTS}",
        hint="name the repository that it was made from; a GGUF file is downloaded by itself first",
    )


def _snapshot(repository: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    # the HTTP library beneath has a tree of errors of its own, and has changed twice
    except Exception as error:
        raise renamed_error(error, repository, revision) from error


def renamed_error(error: Exception, repository: str, revision: str | None = None) -> EdgeLLMError:
    """Return an error of huggingface-hub in our words."""
    from huggingface_hub import errors

    kind: type[EdgeLLMError] = DownloadError
    hint = "try again; what has been fetched is kept"
    match error:
        case errors.GatedRepoError() | errors.DisabledRepoError():
            fact = f"{repository} on the Hub is gated: its owner must let you in"
            hint = f"accept its terms at huggingface.co/{repository}, then: hf auth login"
        case errors.RevisionNotFoundError():
            kind = ModelNotFoundError
            fact = f"{repository} on the Hub has no revision {revision or 'main'}"
            hint = f"its page lists them: huggingface.co/{repository}"
        case errors.RepositoryNotFoundError():
            kind = ModelNotFoundError
            fact = f"there is no {repository} on the Hub, or it is private"
            hint = "check the name; if it is private: hf auth login"
        case errors.HFValidationError():
            kind = ModelNotFoundError
            fact = f"{quoted(repository)} is no name that a Hub repository can have"
            hint = "name it as owner/name"
        case errors.LocalEntryNotFoundError(__cause__=errors.HfHubHTTPError() as cause):
            status = cause.response.status_code
            fact = f"{repository} is not in the cache and the Hub answered {status}"
            hint = "try again later"
        case errors.LocalEntryNotFoundError(__cause__=errors.OfflineModeIsEnabled()):
            fact = f"{repository} is not in the cache and HF_HUB_OFFLINE forbids to fetch it"
            hint = "unset HF_HUB_OFFLINE, or name a folder on this machine"
        case errors.LocalEntryNotFoundError():
            fact = f"{repository} is not in the cache and the Hub cannot be reached"
            hint = "check the network, or name a folder on this machine"
        case errors.HfHubHTTPError():
            fact = f"the Hub answered {error.response.status_code} when asked for {repository}"
        case OSError() if error.errno in NO_SPACE:
            fact = f"no space left to download {repository}"
            hint = "free some space, or set HF_HOME to a folder on another disk"
        case _:
            reason = quoted(f"{type(error).__name__}: {error}".splitlines()[0])
            fact = f"{repository} could not be downloaded: {reason}"
    return kind(fact, hint=hint)
