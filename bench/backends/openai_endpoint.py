"""An OpenAI-compatible URL, streamed: the time to the first token, and tokens a second after it.

What a server does inside it does not tell: prompts are texts of as many words as tokens are wanted,
and how many tokens they were is what the server says. Each begins with other words, so that no
server answers from a cache. Times hold the network's.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import IO, Any
from urllib.parse import SplitResult, urlsplit

from edgellm.bench.speed.timing import NAPS, SLEEP, Clock
from edgellm.bench.speed.workload import Test
from edgellm.errors import BackendError, ConfigError, EdgeLLMError

WORDS = (
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child"),
    *("world", "school", "state", "family", "group", "country", "hand", "part", "place", "case"),
)
SILENCE = 600.0
"""Seconds that a server may say nothing."""

MAX_LINE = 1 << 22
ROUTES = ("completions", "chat/completions")


@dataclass(slots=True)
class Answer:
    """When each piece of a streamed answer came, after it was asked for, and what the server counted."""

    seconds: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """Of the answer: as the server says, else one a piece."""
        return self.completion_tokens or len(self.seconds)


def server_parts(url: str) -> SplitResult:
    """The parts of a server's URL. Raises ConfigError where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(
            f"{url!r} is no URL of a server", hint="write it as http://localhost:8080/v1"
        )
    return parts


class Endpoint:
    """A server and a model on it.

    Args:
        url: with or without the route; ``/v1`` is put behind a bare host.
        model: what the server calls it; empty asks the server for the first that it has.
        key: sent as a bearer token, where there is one.
    """

    def __init__(self, url: str, model: str = "", *, key: str | None = None) -> None:
        parts = server_parts(url)
        base = url.rstrip("/") if parts.path.strip("/") else url.rstrip("/") + "/v1"
        given = [route for route in reversed(ROUTES) if base.endswith(f"/{route}")]
        self.host = parts.netloc.rpartition("@")[2]
        self._base = base.removesuffix(f"/{given[0]}") if given else base
        self._routes = given[:1] or list(ROUTES)
        self._key = key
        self.model = model or self._first_model()

    @property
    def route(self) -> str:
        """How answers are asked for: ``completions``, or ``chat/completions`` where the server knows no other."""
        return self._routes[0]

    def answer(
        self, prompt: str, max_tokens: int, clock: Callable[[], float] = time.perf_counter
    ) -> Answer:
        """Ask for so many tokens, and note when they come. Raises BackendError."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
        }
        body["stream_options"] = {"include_usage": True}
        while True:
            asked = (
                {"prompt": prompt}
                if self.route == ROUTES[0]
                else {"messages": [{"role": "user", "content": prompt}]}
            )
            begun = clock()
            try:
                with self._open(self.route, body | asked) as stream:
                    return self._listen(stream, begun, clock)
            except urllib.error.HTTPError as error:
                if error.code in {404, 405, 501} and len(self._routes) > 1:
                    error.close()
                    self._routes.pop(0)
                    continue
                raise self._refused(error) from error
            except (OSError, ValueError) as error:
                raise self._unreachable(error) from error

    def reply(self, messages: Sequence[Mapping[str, str]], max_tokens: int = 64) -> str:
        """What a conversation is answered with, whole. Raises BackendError."""
        body = {
            "model": self.model,
            "max_tokens": max_tokens,
            "temperature": 0,
            "messages": list(messages),
        }
        try:
            with self._open(ROUTES[1], body) as stream:
                return str(json.loads(stream.read(MAX_LINE))["choices"][0]["message"]["content"])
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except OSError as error:
            raise self._unreachable(error) from error
        except (ValueError, LookupError, TypeError) as error:
            raise BackendError(
                f"{self.host} has answered with no message", hint="is it for conversations?"
            ) from error

    def _listen(self, stream: IO[bytes], begun: float, clock: Callable[[], float]) -> Answer:
        answer = Answer()
        for event in _events(stream):
            if event.get("error"):
                raise BackendError(f"{self.host} says: {_words(event['error'])}")
            usage = event.get("usage")
            if isinstance(usage, dict):
                answer.prompt_tokens = usage.get("prompt_tokens") or answer.prompt_tokens
                answer.completion_tokens = (
                    usage.get("completion_tokens") or answer.completion_tokens
                )
            if any(_text(choice) for choice in event.get("choices") or ()):
                answer.seconds.append(clock() - begun)
        if not answer.seconds:
            raise BackendError(
                f"{self.host} has streamed no token",
                hint="see whether it can stream, and knows the model",
            )
        return answer

    def _first_model(self) -> str:
        try:
            with self._open("models", None) as stream:
                return str(json.loads(stream.read(MAX_LINE))["data"][0]["id"])
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            if isinstance(error, OSError):
                raise self._unreachable(error) from error
            raise BackendError(
                f"{self.host} does not say what models it has", hint="name one: edgellm bench NAME"
            ) from error

    def _open(self, route: str, body: Mapping[str, Any] | None) -> Any:
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
        }
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self._base}/{route}", data=data, headers=headers)
        return urllib.request.urlopen(request, timeout=SILENCE)

    def _refused(self, error: urllib.error.HTTPError) -> BackendError:
        with error:
            said = error.read(4096).decode(errors="replace")
        try:
            said = _words(json.loads(said)["error"])
        except (ValueError, LookupError, TypeError):
            said = " ".join(said.split())[:200]
        hint = (
            "name the variable that holds its key: --key-variable NAME"
            if error.code in {401, 403}
            else None
        )
        return BackendError(f"{self.host} answers {error.code}: {said or error.reason}", hint=hint)

    def _unreachable(self, error: Exception) -> BackendError:
        reason = getattr(error, "reason", None) or error
        return BackendError(
            f"{self.host} cannot be reached: {reason}",
            hint="is the server running, and the URL right?",
        )


def serve_endpoint(
    order: Mapping[str, Any], lines: IO[str], say: Callable[[Mapping[str, Any]], None]
) -> None:
    """Be the worker of an endpoint: do the tests that come."""
    variable = order.get("key_variable")
    if variable and variable not in os.environ:
        raise ConfigError(
            f"there is no variable {variable} in the environment", hint=f"export {variable}=..."
        )
    begun = time.perf_counter()
    endpoint = Endpoint(
        order["endpoint"], order["model"], key=os.environ[variable] if variable else None
    )
    say(
        {
            "device": endpoint.host,
            "arithmetic": None,
            "model": endpoint.model,
            "weight_bytes_per_token": None,
            "load_seconds": time.perf_counter() - begun,
            "read_rate": None,
            "multiply_rate": None,
        }
    )
    numbers = count(time.time_ns())
    for line in lines:
        task = json.loads(line)
        try:
            _do(endpoint, task, numbers, say)
        except EdgeLLMError as error:
            say({"error": error.message, "hint": error.hint})


def _do(
    endpoint: Endpoint,
    task: Mapping[str, Any],
    numbers: Iterator[int],
    say: Callable[[Mapping[str, Any]], None],
) -> None:
    test, clock = Test(**task["test"]), Clock()
    _ask(endpoint, test, numbers)
    say({"warm": True})
    ends = clock.awake() + task["max_seconds"]
    steps, tokens, done, naps = list[float](), 0, 0, 0
    while done < task["repetitions"] and (not done or clock.awake() < ends):
        wall, begun = clock.wall(), clock.awake()
        answers = _ask(endpoint, test, numbers)
        slept = clock.wall() - wall - (clock.awake() - begun) > SLEEP and naps < NAPS
        naps, done = naps + slept, done + (not slept)
        first = min(answer.seconds[0] for answer in answers)
        if test.kind == "pp":
            seconds = max(answer.seconds[0] for answer in answers)
            tokens = round(
                sum(answer.prompt_tokens or test.tokens for answer in answers) / len(answers)
            )
        else:
            seconds = max(answer.seconds[-1] for answer in answers) - first
            tokens = round(sum(answer.tokens - 1 for answer in answers) / len(answers))
            steps += [
                after - before for answer in answers for before, after in pairwise(answer.seconds)
            ]
        if not slept:
            say({"seconds": seconds, "joules": None, "slept": False, "first": first})
        else:
            say({"slept": True})
    if tokens < 1:
        raise BackendError(
            f"{endpoint.host} answers with a single token: there is nothing to time after it"
        )
    say(
        {
            "done": True,
            "steps": steps,
            "peak_memory_bytes": None,
            "energy_source": None,
            "tokens": tokens,
        }
    )


def _ask(endpoint: Endpoint, test: Test, numbers: Iterator[int]) -> list[Answer]:
    """As many answers at once as the test has sequences."""
    prompt, more = (
        (test.depth + test.tokens, 1)
        if test.kind == "pp"
        else (max(8, test.depth), test.tokens + 1)
    )
    texts = [_prompt(next(numbers), prompt) for _ in range(test.batch)]
    if test.batch == 1:
        return [endpoint.answer(texts[0], more)]
    with ThreadPoolExecutor(test.batch) as pool:
        return list(pool.map(lambda text: endpoint.answer(text, more), texts))


def _prompt(number: int, words: int) -> str:
    """So many words; the first ones spell the number, so that no two prompts begin alike."""
    found = []
    for place in range(words):
        number, word = divmod(number, len(WORDS)) if number else (0, place % len(WORDS))
        found.append(WORDS[word])
    return " ".join(found)


def _events(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The objects of a stream of server-sent events."""
    while line := stream.readline(MAX_LINE):
        data = line.strip()
        if data == b"data: [DONE]":
            return
        if data.startswith(b"data:"):
            event = json.loads(data[5:])
            if isinstance(event, dict):
                yield event


def _text(choice: Any) -> str:
    if not isinstance(choice, dict):
        return ""
    delta = choice.get("delta") or {}
    return str(
        choice.get("text")
        or delta.get("content")
        or delta.get("reasoning_content")
        or delta.get("reasoning")
        or ""
    )


def _words(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)[:200]
