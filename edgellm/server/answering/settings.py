"""How the server serves: who may ask, defaults and limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgellm.settings import CHAT_TEMPERATURE, CHAT_TOP_P, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the server serves.

    Attributes:
        api_keys: of which a request needs one; none: nobody is asked for one.
        cors_origins: web pages that may ask, such as ``https://example.org``.
        sampling: how tokens are drawn where a request does not say.
        timeout: seconds that an answer may take, waiting included; None for any time.
    """

    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    sampling: Sampling = field(
        default_factory=lambda: Sampling(temperature=CHAT_TEMPERATURE, top_p=CHAT_TOP_P)
    )
    timeout: float | None = None
