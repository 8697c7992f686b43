"""Calls to a server, which may be away for a while; what went wrong is said by name.

Only what is said needs Flower: this is read without it.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from edgellm.errors import MachineError

AGAIN_SECONDS = 0.5
"""Between two calls of a server that is away."""

UNAUTHORIZED, TAKEN = 401, 409
"""Statuses of a client that the server does not know, and of one whose place another has."""

Made = TypeVar("Made")
Say = Callable[[str], None]


class ForgottenError(Exception):
    """The server knows this client no longer, as one that was started again."""


class TakenError(Exception):
    """Another process has this client's place."""


class Calls:
    """Calls to one server.

    Args:
        server: its address.
        wait: seconds that it may be away.
        say: tells a person when it is away, and when it is there again.
    """

    def __init__(self, server: str, *, wait: float, say: Say) -> None:
        self._server, self._wait, self._say = server, wait, say

    def made(self, call: Callable[[], Made]) -> Made:
        """Return what a call returns, however often it takes.

        Raises:
            ForgottenError, TakenError: what they say.
            MachineError: the server is away for too long, or refuses.
        """
        import httpx

        ends = time.monotonic() + self._wait
        is_away = False
        while True:
            try:
                found = call()
            except httpx.HTTPStatusError as error:
                if error.response.status_code == UNAUTHORIZED:
                    raise ForgottenError from error
                if error.response.status_code == TAKEN:
                    raise TakenError from error
                raise MachineError(
                    f"the server at {self._server} refused: {_words(error.response)}",
                    hint="see what the server says itself",
                ) from error
            except httpx.TransportError as error:
                refused = self._distrusted(error)
                if refused is not None:
                    raise refused from error
                reason = why(error)
                if time.monotonic() > ends:
                    raise MachineError(
                        f"no server answers at {self._server}, for {self._wait:.0f} s: {reason}",
                        hint="start it (edgellm federate server), or use a longer --wait; the same "
                        "command joins the next round",
                    ) from error
                if not is_away:
                    is_away = True
                    self._say(
                        f"no server answers at {self._server}: {reason}; waiting for it up to "
                        f"{self._wait:.0f} s"
                    )
                time.sleep(AGAIN_SECONDS)
                continue
            if is_away:
                self._say(f"the server at {self._server} answers")
            return found

    def _distrusted(self, error: BaseException) -> MachineError | None:
        """Return why what answers is not waited for; None: it may become better."""
        failed = next((each for each in _chain(error) if isinstance(each, ssl.SSLError)), None)
        if failed is None:
            return None
        if "expired" in str(failed) or "not yet valid" in str(failed):
            now = time.strftime("%Y-%m-%d %H:%M")
            return MachineError(
                f"the invitation's certificate of {self._server} is not valid at {now}, which this "
                "machine's clock shows",
                hint="set the clock; if it is right, start the federation again and take its new "
                "invitation",
            )
        if failed.reason in ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER"):
            return MachineError(
                f"what answers at {self._server} is not the server of the invitation",
                hint="take the invitation that the server has written last, and compare the ports",
            )
        return None


def why(error: BaseException) -> str:
    """Return in words why a connection failed, whichever library wraps the system's reason."""
    for each in _chain(error):
        if isinstance(each, TimeoutError):
            return "nothing came in time"
        if isinstance(each, OSError) and each.strerror and not isinstance(each, ssl.SSLError):
            return each.strerror
    return str(error).strip().rstrip(".") or type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _words(response: Any) -> str:
    """Return what the server says of a refusal."""
    with suppress(ImportError, ValueError, KeyError, TypeError):
        from flwr.supercore.error import FlowerError

        error = FlowerError.from_json(response.text)
        if error is not None:
            return f"{error.message} (Flower's code {error.code})"
    return f"status {response.status_code}"
