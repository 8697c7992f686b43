"""Machines that are waited for no longer than a test should take."""

import pytest

from edgellm.distributed.links import call, pulse


@pytest.fixture
def impatient(monkeypatch):
    """Wait two seconds for a heartbeat, and one for a call to be answered, in this process."""
    monkeypatch.setattr(pulse, "PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(call, "HANDSHAKE_SECONDS", 1.0)
