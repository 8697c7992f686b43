"""How the server serves: where it listens, who may ask, and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgellm.settings import CHAT_TEMPERATURE, CHAT_TOP_P, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the server serves.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        sampling: how tokens are drawn where a request does not say.
        timeout: seconds that an answer may take, waiting included; None for any time.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    sampling: Sampling = field(
        default_factory=lambda: Sampling(temperature=CHAT_TEMPERATURE, top_p=CHAT_TOP_P)
    )
    timeout: float | None = None
