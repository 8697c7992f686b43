"""The file that names the machines of a cluster, in the forms that MLX has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.distributed.links.addresses import DEFAULT_PORT, Address, parse_address
from edgellm.errors import ConfigError
from edgellm.files.bounded import read_bounded
from edgellm.files.strict_json import loads_strict, quoted

MAX_MACHINES = 64

_FORM = (
    'it is a list such as [{"ssh": "first", "ips": ["192.168.1.10"]}, '
    '{"ssh": "second", "ips": ["192.168.1.11"]}], this machine first'
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of a cluster.

    Attributes:
        name: what errors and tables call it.
        address: where it listens.
        ssh: what ssh calls it; None where it is started by hand.
        memory: its budget, as ``--memory`` has it; None: its own default.
    """

    name: str
    address: Address
    ssh: str | None = None
    memory: str | None = None


def read_machines(path: Path) -> list[Machine]:
    """Read a file of machines; the first one is this one.

    It may be mlx.launch's (objects with ``ssh`` and ``ips``, also under ``hosts``) or the ring's
    (``[["10.0.0.1:5000"], ...]``). Raises ConfigError.
    """
    try:
        document = loads_strict(read_bounded(path, 1 << 20).decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}", hint=_FORM) from error
    if isinstance(document, dict):
        document = document.get("hosts")
    if not isinstance(document, list) or not 2 <= len(document) <= MAX_MACHINES:
        raise ConfigError(f"{path} does not name two machines or more", hint=_FORM)
    machines = [_machine(entry, path) for entry in document]
    seen: dict[Address, str] = {}
    for machine in machines[1:]:
        if machine.address in seen:
            raise ConfigError(
                f"{path} names {machine.address} twice", hint="give one of them another port"
            )
        seen[machine.address] = machine.name
    return machines


def secret_file(hosts: Path) -> Path:
    """Return where the secret of the machines in a file lies, if nothing else is said."""
    return hosts.with_name(f"{hosts.name}.secret")


def _machine(entry: Any, path: Path) -> Machine:
    if isinstance(entry, list):
        entry = {"ips": entry}
    if not isinstance(entry, dict):
        raise ConfigError(f"{path} has {quoted(entry)} for a machine", hint=_FORM)
    addresses, ssh, port = entry.get("ips"), entry.get("ssh"), entry.get("port", DEFAULT_PORT)
    memory = entry.get("memory")
    if not isinstance(addresses, list) or not addresses or not isinstance(addresses[0], str):
        raise ConfigError(f"{path} has a machine without an address", hint=_FORM)
    for key, value, kind in (("ssh", ssh, str), ("port", port, int), ("memory", memory, str)):
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"{path}: {key} is {quoted(value)}", hint=_FORM)
    if ssh is not None and (not ssh or ssh.startswith("-") or any(map(str.isspace, ssh))):
        raise ConfigError(f"{path}: ssh is {quoted(ssh)}, which names no machine", hint=_FORM)
    address = parse_address(addresses[0], port)
    return Machine(ssh or str(address), address, ssh, memory)
