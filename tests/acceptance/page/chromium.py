"""A headless Chromium of this machine, driven over a pipe: no driver, no socket, no package."""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from contextlib import contextmanager, suppress

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
SECONDS = 30
"""How long an answer of the browser, or a state of its page, is waited for."""


def installed():
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, (*NAMES, MACOS))), None)


class RefusedError(Exception):
    """The browser refuses a call, or an expression raises: the page may be on its way."""


class Page:
    """One page of a browser; what it logs as an error is kept in ``complaints``."""

    def __init__(self, writing, reading):
        self._writing = writing
        self._reading = reading
        self._buffer = b""
        self._last = 0
        self._session = None
        self.complaints = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """What a method of the DevTools protocol returns."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            self._note(answer)
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RefusedError(method, answer["error"])
                return answer["result"]

    def _receive(self):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reading], [], [], SECONDS)
            assert ready, "the browser does not answer"
            data = os.read(self._reading, 1 << 16)
            assert data, "the browser is gone"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, message):
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(parameters["exceptionDetails"]["exception"]["description"])
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(parameters["entry"]["text"])

    def open(self, url):
        """Go to an address, and wait until its script has run."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression):
        """The value of an expression in the page."""
        done = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in done:
            raise RefusedError(expression, done["exceptionDetails"]["exception"]["description"])
        return done["result"].get("value")

    def until(self, expression):
        """Wait until an expression is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with suppress(RefusedError):
                if self.value(f"Boolean({expression})"):
                    return
            time.sleep(0.02)
        raise AssertionError(f"never true: {expression}")

    def write(self, text):
        """Write where the focus is, as a person does."""
        self.call("Input.insertText", text=text)

    def press(self, key, code=0, *, shift=False):
        """Press a key, and let it go."""
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift}
        if key == "Enter":
            event["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", **event)
        event.pop("text", None)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def click(self, selector):
        """Click on an element."""
        self.value(f"document.querySelector({json.dumps(selector)}).click()")

    def resize(self, width, height, *, touch=False):
        """Give the page the size of a window, or of a phone."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)

    def picture(self, path):
        """Write a picture of the page to a file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def chromium(folder):
    """A page of a browser that keeps its things in a folder, and ends with the block."""
    from_us, writing = os.pipe()
    reading, to_us = os.pipe()
    # the browser reads from 3 and writes to 4: ours must not lie there
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (from_us, to_us)]
    os.close(from_us)
    os.close(to_us)
    silent = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in zip(high, (3, 4), strict=True)]
    actions += [(os.POSIX_SPAWN_DUP2, silent, 1), (os.POSIX_SPAWN_DUP2, silent, 2)]
    command = [installed(), *SWITCHES, f"--user-data-dir={folder}", "about:blank"]
    process = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    for fd in (*high, silent):
        os.close(fd)
    try:
        yield Page(writing, reading)
    finally:
        os.close(writing)
        os.close(reading)
        _end(process)


def _end(process):
    """Wait until a browser has ended by itself, as it does when its pipe is closed."""
    for _ in range(250):
        if os.waitpid(process, os.WNOHANG)[0]:
            return
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
