"""The Hub's library, asked so that it answers in time, quietly; its errors in our words."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edgellm.console.streams import is_terminal
from edgellm.errors import DownloadError, EdgeLLMError, ModelNotFoundError
from edgellm.files.refusals import NO_SPACE
from edgellm.files.strict_json import quoted

T = TypeVar("T")

SECONDS = 3.0
"""In which the Hub has to answer the first question, names looked up and all addresses tried.

``HF_HUB_ETAG_TIMEOUT``, where it is set, is taken instead.
"""


UNKNOWN_HERE = (401, 403)
"""Answers of the Hub to a token that it does not know, or that may not do this."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository by their paths, and the commit they are of."""

    names: tuple[str, ...]
    commit: str


class NoAnswerError(Exception):
    """The Hub did not answer in time."""


def list_repository(repository: str, revision: str | None = None) -> Listing:
    """Return what a repository holds, without a second try.

    Raises:
        Exception: those of the library, and NoAnswerError where it cannot be reached; for
            ``renamed_error``.
    """
    from huggingface_hub import HfApi, errors

    def ask() -> Listing:
        try:
            info = HfApi().model_info(repository, revision=revision, timeout=_seconds())
        except (errors.HfHubHTTPError, errors.HFValidationError, errors.OfflineModeIsEnabled):
            raise
        except Exception as error:  # the HTTP library's, which has changed twice
            raise NoAnswerError from error
        names = tuple(item.rfilename for item in info.siblings or ())
        return Listing(names, str(info.sha))

    return ask_in_time(ask)


def ask_in_time(question: Callable[[], T]) -> T:
    """Return the answer to a short question to the Hub.

    Raises:
        Exception: those of the question, and NoAnswerError where it takes too long.
    """
    with quiet():
        return _Answer(question).within(_seconds())


def fetch(repository: str, revision: str | None, patterns: list[str]) -> Path:
    """Return the folder of a repository with the files of some patterns, fetched where missing.

    Raises:
        ModelNotFoundError, DownloadError: as ``renamed_error``.
    """
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            found = snapshot_download(repository, revision=revision, allow_patterns=patterns)
    except Exception as error:
        raise renamed_error(error, repository, revision) from error
    return Path(found)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's log, which tells of each try, off the screen, and bars to terminals."""
    from huggingface_hub import utils

    level = utils.logging.get_verbosity()
    utils.logging.set_verbosity(logging.CRITICAL)
    hide_bars = not is_terminal(sys.stderr) and not utils.are_progress_bars_disabled()
    if hide_bars:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.logging.set_verbosity(level)
        if hide_bars:
            utils.enable_progress_bars()


def renamed_error(
    error: Exception, repository: str, revision: str | None = None, *, here: str = "not"
) -> EdgeLLMError:
    """Return an error of huggingface-hub in our words; ``here``: how much is in the cache."""
    from huggingface_hub import errors

    kind: type[EdgeLLMError] = DownloadError
    hint = "try again; what has been fetched is kept"
    match error:
        case EdgeLLMError():
            return error
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
            fact = f"{quoted(repository)} is not a valid name of a Hub repository"
            hint = "name it as owner/name"
        case (
            errors.OfflineModeIsEnabled()
            | errors.LocalEntryNotFoundError(__cause__=errors.OfflineModeIsEnabled())
        ):
            fact = f"{repository} is {here} in the cache and HF_HUB_OFFLINE forbids fetching it"
            hint = "unset HF_HUB_OFFLINE, or name a folder on this machine"
        case (errors.HfHubHTTPError() as refusal) | errors.LocalEntryNotFoundError(
            __cause__=errors.HfHubHTTPError() as refusal
        ):
            status = refusal.response.status_code
            fact = f"{repository} is {here} in the cache and the Hub answered {status}"
            hint = "try again later"
            if status in UNKNOWN_HERE:
                hint = "your token may be out of date: hf auth login, or unset HF_TOKEN"
        case NoAnswerError() | errors.LocalEntryNotFoundError():
            fact = f"{repository} is {here} in the cache and the Hub cannot be reached"
            hint = "check the network; if it is meant as a path, nothing is there"
        case OSError() if error.errno in NO_SPACE:
            fact = f"no space left to download {repository}"
            hint = "free some space, or set HF_HOME to a folder on another disk"
        case _:
            reason = quoted(f"{type(error).__name__}: {error}".splitlines()[0])
            fact = f"{repository} could not be downloaded: {reason}"
    return kind(fact, hint=hint)


def _seconds() -> float:
    from huggingface_hub import constants

    if constants.HF_HUB_ETAG_TIMEOUT != constants.DEFAULT_ETAG_TIMEOUT:
        return float(constants.HF_HUB_ETAG_TIMEOUT)
    return SECONDS


class _Answer(Generic[T]):
    """A call in a thread of its own, which is left to itself when it takes too long.

    No timeout of the HTTP library bounds the look-up of a name, nor all addresses together.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._value: T | None = None
        self._error: Exception | None = None

    def within(self, seconds: float) -> T:
        """Return its value, or raise its error; NoAnswerError after ``seconds``."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        thread.join(seconds)
        if self._error is not None:
            raise self._error
        if self._value is None:
            raise NoAnswerError
        return self._value

    def _run(self) -> None:
        try:
            self._value = self._call()
        except Exception as error:
            self._error = error
