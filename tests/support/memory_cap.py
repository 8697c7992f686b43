"""Whether this system lets a test hold a process to a number of bytes."""

from edgellm.bench.worker.memory_cap import capped
from edgellm.errors import ConfigError


def can_cap():
    try:
        with capped(["true"], 1 << 30):
            return True
    except ConfigError:
        return False
