"""Signals wait until a block has ended, and come then."""

import os
import signal
import threading

import pytest

from edgellm.device.held_signals import signals_held


def test_ctrl_c_comes_when_the_block_has_ended():
    done = []

    def work():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("whole")

    with pytest.raises(KeyboardInterrupt), signals_held():
        work()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_block_gives_handlers_back():
    with pytest.raises(ValueError, match="mine"), signals_held():
        raise ValueError("mine")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_holds_nothing():
    found = []

    def work():
        with signals_held():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
