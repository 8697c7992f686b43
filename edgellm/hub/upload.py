"""The upload of a model folder to the Hub, with its card."""

from __future__ import annotations

from pathlib import Path

from edgellm.checkpoint.folder import CHECKSUMS, read_checksums
from edgellm.errors import ConfigError, DownloadError, EdgeLLMError
from edgellm.files.atomic import write_file
from edgellm.files.strict_json import quoted
from edgellm.hub.client import NoAnswerError, ask_in_time, quiet
from edgellm.hub.model_card import CARD
from edgellm.hub.names import is_hub_id

SIGN_IN = "make a token that may write at huggingface.co/settings/tokens, then: hf auth login"


def require_account(repository: str) -> None:
    """Check, before hours of work, that the Hub knows who is asking.

    Raises:
        ConfigError: the name is none that a repository can have.
        DownloadError: the Hub cannot be reached, or does not know the token.
    """
    if not is_hub_id(repository):
        raise ConfigError(
            f"{repository!r} is not a valid name of a Hub repository", hint="name it as owner/name"
        )
    from huggingface_hub import HfApi

    try:
        ask_in_time(HfApi().whoami)
    except Exception as error:
        raise _renamed(error, repository) from error


def upload(folder: Path, repository: str, card: str, *, private: bool = False) -> str:
    """Write the card into the folder, upload the model in one commit, and return its address.

    Files beside it that edgellm has not written stay here.

    ``HF_ENDPOINT`` and ``HF_TOKEN`` are huggingface-hub's own, and respected.

    Args:
        folder: a whole model folder.
        repository: ``owner/name``; made if it is not there.
        card: the model card, Markdown.
        private: whether a repository that is made is for its owner alone.

    Raises:
        ConversionError: the card cannot be written.
        FormatError, ReadError: the folder's list of files is damaged.
        DownloadError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    names = [CARD, CHECKSUMS, *(record.name for record in read_checksums(folder))]
    write_file(folder / CARD, [card.encode()])
    try:
        api = HfApi()
        with quiet():
            api.create_repo(repository, exist_ok=True, private=private)
            done = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message="Converted by edgellm",
                allow_patterns=names,
            )
    except Exception as error:
        raise _renamed(error, repository, folder) from error
    return str(done.commit_url)


def _renamed(error: Exception, repository: str, folder: Path | None = None) -> EdgeLLMError:
    """Return an error of huggingface-hub in our words."""
    from huggingface_hub import errors

    again = "try again later"
    if folder:
        again = f"try again: hf upload {repository} {folder}"
    match error:
        case errors.LocalTokenNotFoundError():
            return DownloadError("uploading needs a Hub token", hint=SIGN_IN)
        case NoAnswerError():
            return DownloadError("the Hub cannot be reached", hint="check the network")
        case errors.OfflineModeIsEnabled():
            return DownloadError("HF_HUB_OFFLINE forbids uploading", hint="unset HF_HUB_OFFLINE")
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return DownloadError(f"the Hub does not let you write to {repository}", hint=SIGN_IN)
        case errors.HfHubHTTPError():
            fact = (
                f"the Hub answered {error.response.status_code} when {repository} was to be written"
            )
            return DownloadError(fact, hint=again)
    reason = quoted(f"{type(error).__name__}: {error}".splitlines()[0])
    return DownloadError(f"{repository} could not be uploaded: {reason}", hint=again)
