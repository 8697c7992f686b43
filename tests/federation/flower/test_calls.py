"""What a client says of a server that cannot be reached."""

import errno
import os
import socket
import ssl
import threading
from contextlib import closing

import pytest
from support.ports import free_port

from edgellm.errors import MachineError
from edgellm.federation.flower.calls import Calls, TakenError, why


@pytest.fixture
def httpx():
    return pytest.importorskip("httpx", reason="Flower, which brings it, is not installed")


def called(httpx, url, said, wait=0.0):
    with httpx.Client(timeout=0.5, trust_env=False) as client:
        return Calls("the place", wait=wait, say=said.append).made(
            lambda: client.get(url).raise_for_status()
        )


def test_a_server_that_is_not_there_is_told_in_words_at_once(httpx):
    said = []
    with pytest.raises(MachineError) as raised:
        called(httpx, f"http://127.0.0.1:{free_port()}", said, wait=0.7)
    reason = os.strerror(errno.ECONNREFUSED)
    assert raised.value.message == f"no server answers at the place, for 1 s: {reason}"
    assert "edgellm federate server" in raised.value.hint
    assert said == [f"no server answers at the place: {reason}; waiting for it up to 1 s"]


def test_one_that_says_nothing_is_told_as_that(httpx):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(MachineError, match="nothing came in time"),
    ):
        called(httpx, f"http://127.0.0.1:{silent.getsockname()[1]}", [])


def test_one_that_speaks_no_tls_is_another_one_and_not_waited_for(httpx):
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer():
            with closing(plain.accept()[0]) as connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 400 no\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(MachineError, match="is not the server of the invitation"):
            called(httpx, f"https://127.0.0.1:{plain.getsockname()[1]}", [], wait=60)


@pytest.mark.parametrize("state", ["has expired", "is not yet valid"])
def test_a_clock_that_is_wrong_is_told(httpx, state):
    failed = ssl.SSLCertVerificationError(1, f"CERTIFICATE_VERIFY_FAILED: certificate {state}")

    def call():
        raise httpx.ConnectError("it") from failed

    with pytest.raises(MachineError, match="this machine's clock") as raised:
        Calls("the place", wait=60, say=print).made(call)
    assert raised.value.hint.startswith("set the clock")


def test_one_whose_place_is_taken_is_not_waited_for(httpx):
    def call():
        request = httpx.Request("POST", "http://it")
        httpx.Response(409, request=request).raise_for_status()

    with pytest.raises(TakenError):
        Calls("the place", wait=60, say=print).made(call)


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET])
def test_reasons_of_the_system_are_in_words(number):
    wrapped = RuntimeError(f"[Errno {number}] x")
    wrapped.__cause__ = OSError(number, os.strerror(number))
    assert why(wrapped) == os.strerror(number)
    assert why(RuntimeError("")) == "RuntimeError"
