"""Locust's side: users that ask until a turn is over, in a process that gevent has patched.

Locust is imported when a turn begins: it replaces the standard library's sockets and threads.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from edgellm.bench.serving.answer import Answer
from edgellm.bench.serving.client import Client
from edgellm.bench.serving.load import CHAT, MAX_USERS, ROUTES
from edgellm.bench.serving.prompts import prompts_of
from edgellm.bench.serving.turn import Turn, turn_of

POLL_SECONDS = 0.005
AFTER_FAILURE = 0.2
"""Seconds that a user waits after a failure, so that a server that refuses is not stormed."""

TOO_MANY = f"not sent: {MAX_USERS:,} were under way"


@dataclass(slots=True)
class _Requests:
    """The requests of a turn and their answers; whoever asks takes the next one.

    Attributes:
        order: the load, as ``serving.py`` sends it.
        ends: the clock at which no more requests begin; None: not known yet.
    """

    order: Mapping[str, Any]
    ends: float | None = None
    answers: list[Answer] = field(default_factory=list)
    begun: int = 0
    under_way: int = 0
    _prompts: Iterator[str] = field(init=False)
    _idle: list[Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._prompts = prompts_of(self.order)

    @property
    def is_over(self) -> bool:
        """Whether no request is to begin any more."""
        most: int | None = self.order["requests"]
        if most is not None:
            return self.begun >= most
        return self.ends is not None and time.perf_counter() >= self.ends

    def send(self, due: float | None = None) -> Answer:
        """Send the next request on a connection that is idle, and return its answer."""
        self.begun += 1
        self.under_way += 1
        try:
            client = self._idle.pop() if self._idle else self._new_client()
            answer = client.ask(self._body(next(self._prompts)), due=due)
            self._idle.append(client)
        finally:
            self.under_way -= 1
        self.answers.append(answer)
        return answer

    def refuse(self, due: float) -> Answer:
        """Return the failure of a request that is not sent."""
        self.begun += 1
        answer = Answer(asked=due, ended=due, failure=TOO_MANY)
        self.answers.append(answer)
        return answer

    @property
    def url(self) -> str:
        """The address of the route."""
        return f"{self.order['url']}/{ROUTES[self.order['endpoint']]}"

    def _new_client(self) -> Client:
        headers = {}
        if self.order["key"]:
            headers["Authorization"] = f"Bearer {self.order['key']}"
        return Client(
            self.url,
            headers,
            timeout=self.order["timeout"],
            max_tokens=self.order["max_tokens"],
        )

    def _body(self, prompt: str) -> bytes:
        body: dict[str, Any] = {
            "model": self.order["model"],
            "max_tokens": self.order["max_tokens"],
            "temperature": self.order["temperature"],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.order["endpoint"] == CHAT:
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        return json.dumps(body).encode()


def run_turn(order: Mapping[str, Any]) -> Turn:
    """Send a load as users of Locust, and return the turn's figures."""
    requests = _Requests(order)
    if order["rate"] is None:
        return _closed_loop(requests)
    return _open_loop(requests)


def warm_up(order: Mapping[str, Any]) -> Answer:
    """Send one request, and return its answer."""
    return _Requests(order).send()


def _closed_loop(requests: _Requests) -> Turn:
    """Have each user ask again as soon as its answer has ended."""
    from gevent import sleep
    from locust import User, constant
    from locust.exception import StopUser

    class Person(User):  # type: ignore[misc]
        """Asks, reads the stream to its end, and asks again."""

        wait_time = constant(0)

        def ask(self) -> None:
            """Ask once."""
            if requests.is_over:
                raise StopUser
            answer = requests.send()
            _tell(self.environment, requests.url, answer)
            if answer.failure is not None:
                sleep(AFTER_FAILURE)

        tasks: ClassVar = [ask]

    order = requests.order
    return _run(requests, Person, order["users"], order["spawn_rate"] or order["users"])


def _open_loop(requests: _Requests) -> Turn:
    """Have requests arrive at random, however many are under way (a Poisson process)."""
    from gevent import sleep, spawn
    from locust import User, constant
    from locust.exception import StopUser

    waits = random.Random(requests.order["seed"])

    class Arrivals(User):  # type: ignore[misc]
        """Sends each request when it is due, and waits for none."""

        wait_time = constant(0)
        due = 0.0

        def on_start(self) -> None:
            """Begin to count."""
            self.due = time.perf_counter()

        def arrive(self) -> None:
            """Send the next request."""
            self.due += waits.expovariate(requests.order["rate"])
            sleep(max(0.0, self.due - time.perf_counter()))
            if requests.is_over:
                raise StopUser
            if requests.under_way >= MAX_USERS:
                _tell(self.environment, requests.url, requests.refuse(self.due))
            else:
                spawn(self.send, self.due)

        tasks: ClassVar = [arrive]

        def send(self, due: float) -> None:
            """Send one request, and wait for its answer."""
            _tell(self.environment, requests.url, requests.send(due))

    return _run(requests, Arrivals, 1, 1.0)


def _run(requests: _Requests, kind: type, users: int, spawn_rate: float) -> Turn:
    """Spawn the users, wait until all is answered, and return the figures."""
    from gevent import sleep
    from locust.env import Environment

    environment = Environment(user_classes=[kind])
    runner = environment.create_local_runner()
    begun, used = time.perf_counter(), time.process_time()
    spawned: list[float] = []

    def all_are_there(**_: Any) -> None:
        spawned.append(time.perf_counter())

    environment.events.spawning_complete.add_listener(all_are_there)
    runner.start(users, spawn_rate=spawn_rate)
    while not spawned:
        sleep(POLL_SECONDS)
    if requests.order["requests"] is None:
        # the time in which users come is no part of the turn
        begun, used = spawned[0], time.process_time()
        requests.ends = begun + requests.order["duration"]
        sleep(requests.order["duration"])
        used = time.process_time() - used
    while runner.user_count or requests.under_way:
        sleep(POLL_SECONDS)
    runner.quit()
    ended = requests.ends
    if ended is None:
        used = time.process_time() - used
        ended = max((answer.ended for answer in requests.answers), default=begun)
    return turn_of(requests.answers, begun, ended, used)


def _tell(environment: Any, url: str, answer: Answer) -> None:
    """Tell Locust of a request, as its own clients do."""
    error: Exception | None = None
    if answer.failure is not None:
        error = ConnectionError(answer.failure)
    environment.events.request.fire(
        request_type="POST",
        name=url,
        response_time=1000 * (answer.ended - answer.asked),
        response_length=0,
        exception=error,
        context={"answer": answer},
    )
