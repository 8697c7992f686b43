"""Whether this system lets a test make network namespaces and slow disks."""

import tempfile
from pathlib import Path

from edgellm.bench.studies.clusters.network import Link, network
from edgellm.bench.studies.clusters.slow_disk import slow_disk
from edgellm.errors import ConfigError


def can_make_networks():
    try:
        with (
            network(1, Link(0.0, 1e9)),
            slow_disk("edgellm-tried", Path(tempfile.gettempdir()), 1e9),
        ):
            return True
    except ConfigError:
        return False
