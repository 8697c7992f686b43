"""The load of a test: how many users, which requests, for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.bench.backends.one_server import server_parts
from edgellm.errors import ConfigError

MAX_USERS = 1024
"""Users of one process, and requests that are under way at once."""

CHAT, COMPLETIONS = "chat", "completions"
ROUTES = {CHAT: "chat/completions", COMPLETIONS: "completions"}
"""The route of each endpoint that can be loaded, behind ``/v1``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A point of a curve: closed loop with ``users``, or open loop with ``rate`` arrivals/s."""

    users: int = 1
    rate: float | None = None

    def __str__(self) -> str:
        """Return it in words."""
        if self.rate is not None:
            return f"{self.rate:g} requests/s"
        if self.users == 1:
            return "1 user"
        return f"{self.users} users"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A load test, the same for every server.

    Attributes:
        levels: the points of the curve.
        spawn_rate: users that start in a second; None starts all at once.
        duration: seconds of a turn, after all users have started.
        requests: requests of a turn; None goes by ``duration``.
        turns: times that each server has its turn at a level.
        endpoint: ``chat`` or ``completions``.
        prompt_tokens: words of a prompt, each about a token.
        prompts: texts of one's own, asked in turn; none sends words.
        max_tokens: of an answer.
        temperature: 0 takes the likeliest token.
        timeout: seconds that a request may take.
        seed: of prompts and arrivals.
    """

    levels: Sequence[Level]
    spawn_rate: float | None = None
    duration: float = 10.0
    requests: int | None = None
    turns: int = 1
    endpoint: str = CHAT
    prompt_tokens: int = 32
    prompts: Sequence[str] = ()
    max_tokens: int = 64
    temperature: float = 0.0
    timeout: float = 120.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what cannot be. Raises ConfigError."""
        if self.endpoint not in ROUTES:
            raise ConfigError(
                f"--endpoint is {self.endpoint!r}", hint=f"choose from {', '.join(ROUTES)}"
            )
        for level in self.levels:
            if not 1 <= level.users <= MAX_USERS:
                raise ConfigError(f"{level.users} users: it must be 1 to {MAX_USERS}")
            if level.rate is not None and not 0.001 <= level.rate <= 10_000:
                raise ConfigError(f"--rate is {level.rate:g}; it must be 0.001 to 10,000")
        if self.spawn_rate is not None and not 0.01 <= self.spawn_rate <= MAX_USERS:
            raise ConfigError(f"--spawn-rate is {self.spawn_rate:g}; it must be 0.01 to 1,024")

    @property
    def test(self) -> str:
        """The name of the test: prompt and generation in llama-bench's words."""
        prompt = f"pp{self.prompt_tokens}"
        if self.prompts:
            prompt = f"{len(self.prompts)} prompts"
        return f"{prompt}+tg{self.max_tokens}"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is loaded.

    Attributes:
        name: what it is called in tables.
        url: its address, ``/v1`` included.
        model: the name of its model.
        key: the bearer token, if it wants one.
    """

    name: str
    url: str
    model: str = ""
    key: str | None = None


def parse_server(text: str) -> tuple[str, str]:
    """Return the name and the URL of ``NAME=URL``; a URL alone is called by its host.

    Raises:
        ConfigError: it is the URL of no server.
    """
    name, mark, url = text.partition("=")
    if not mark or "/" in name:
        return server_parts(text).netloc, text
    server_parts(url)
    return name.strip(), url
