"""The process that renders chat templates, seen from the process that asks it."""

from __future__ import annotations

import atexit
import functools
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import TemplateError

PROGRAM = Path(__file__).with_name("renderer.py")
MAX_REUSED_BYTES = 64 << 20
"""Memory after which a render process is not used again: leavings would count for the next text."""

TAKE_TURNS = (
    "let users and assistants take turns, with a system message before them "
    "only where the model knows one"
)
TOO_MUCH = "the chat template takes more time or memory than a conversation calls for"


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderLimits:
    """Bounds on one rendering; each grows with the conversation, so that long chats go on.

    A usual template takes a millisecond, 25 MB, and few characters more than its messages have.

    Attributes:
        seconds: processor time.
        max_bytes: memory of the render process.
        max_characters: length of the text.
    """

    seconds: float = 1.0
    max_bytes: int = 256 << 20
    max_characters: int = 1 << 20

    def for_request(self, size: int) -> tuple[float, int, int]:
        """Return the three limits for a request of ``size`` bytes."""
        return (
            self.seconds + 1e-5 * size,
            self.max_bytes + 64 * size,
            self.max_characters + 16 * size,
        )


@dataclass(frozen=True, slots=True)
class TemplateNames:
    """The names that a template reads.

    Attributes:
        variables: from what it is given.
        words: names of attributes, and texts in quotation marks.
    """

    variables: frozenset[str]
    words: frozenset[str]


class RenderProcess:
    """A child process that renders one template at a time; it may serve many threads.

    It is started when it is first needed, and again after a template that it did not survive.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._process = os.getpid()
        atexit.register(self._close_at_exit)

    def render(self, source: str, variables: Mapping[str, Any], limits: RenderLimits) -> str:
        """Return the text that the template ``source`` makes of ``variables``, plain data.

        Raises:
            TemplateError: the template is damaged, fails, refuses the conversation or takes too
                much.
        """
        reply = self._ask(source, variables, limits)
        if "text" not in reply:
            raise TemplateError(TOO_MUCH)
        return str(reply["text"])

    def names(self, source: str, limits: RenderLimits) -> TemplateNames:
        """Return the names that the template ``source`` reads. Raises TemplateError."""
        reply = self._ask(source, None, limits)
        if "variables" not in reply:
            raise TemplateError(TOO_MUCH)
        return TemplateNames(frozenset(reply["variables"]), frozenset(reply["words"]))

    def _ask(
        self, source: str, variables: Mapping[str, Any] | None, limits: RenderLimits
    ) -> dict[str, Any]:
        """Return the child's answer. Raises TemplateError where there is none but a failure."""
        # pickles go to the child only: what comes back from it is JSON, which runs nothing
        conversation = pickle.dumps(variables)
        request = pickle.dumps((source, *limits.for_request(len(conversation)))) + conversation
        with self._lock:
            child = self._running()
            try:
                answer = _exchange(child, request)
            except BaseException:  # an answer that comes late is not that of the next request
                self._end()
                raise
            if not answer:
                child.wait()
                raise TemplateError(_cause_of_death(self._end()))
            reply: dict[str, Any] = json.loads(answer)
            if reply["peak_bytes"] > MAX_REUSED_BYTES:
                self._end()
        if "refusal" in reply:
            raise TemplateError(
                f"the chat template refuses the conversation: {reply['refusal']}", hint=TAKE_TURNS
            )
        if "failure" in reply:
            raise TemplateError(f"the chat template {reply['failure']}")
        return reply

    def close(self) -> None:
        """End the child process; the next rendering starts another."""
        with self._lock:
            if self._child is not None:
                self._end()

    def _close_at_exit(self) -> None:
        if os.getpid() == self._process:  # the child of a process is not its forks' to end
            self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the child process, a new one where there is none or it was ended from outside."""
        if self._child is not None and self._child.poll() is not None:
            self._end()
        if self._child is None:
            self._child = _start()
        return self._child

    def _end(self) -> int:
        """End the child process and return its exit code, negative for a signal."""
        child = self._child
        assert child is not None
        self._child = None
        child.kill()
        child.communicate()
        return child.returncode


@functools.cache
def render_process(process_id: int) -> RenderProcess:
    """Return the render process of the process ``process_id``: one that was forked has its own."""
    return RenderProcess()


def _start() -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            # without its own ideas of where modules are, so that it finds the Jinja we would find
            [sys.executable, "-S", "-P", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            process_group=0,  # Ctrl-C in the terminal is for the parent
        )
    except OSError as error:
        raise TemplateError(
            f"the process that renders chat templates does not start: {error.strerror}"
        ) from error


def _exchange(child: subprocess.Popen[bytes], request: bytes) -> bytes:
    """Return the child's answer to ``request``; ``b""`` when it died of it."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(request)
        child.stdin.flush()
    except BrokenPipeError:
        return b""
    return child.stdout.readline()


def _cause_of_death(return_code: int) -> str:
    if return_code < 0:  # by a signal: SIGPROF after its time, or one that memory brings
        return TOO_MUCH
    return f"the process that renders chat templates ended with {return_code}"
