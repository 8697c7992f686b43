"""The file that names the machines of a cluster, in the forms that MLX has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edgellm.distributed.links.addresses import DEFAULT_PORT, Address, parse_address
from edgellm.errors import ConfigError
from edgellm.files.bounded import read_bounded
from edgellm.files.strict_json import loads_strict, quoted
from edgellm.setting_values import is_int
from edgellm.settings.sizes import MAX_SIZE, parse_memory

MAX_MACHINES = 64

MAX_NAME = 255
"""Letters of what ssh calls a machine."""

_KEYS = ("ssh", "ips", "port", "memory")
"""Of a machine, those that are ours or mean the same in MLX."""

_OTHERS_KEYS = {"rdma", "hostname", "node_id"}
"""Of a machine, those of other programs that read these files; the first is MLX's."""

_TOP_KEYS, _OTHERS_TOP_KEYS = ("hosts",), {"backend", "envs"}
"""Likewise of the file, where it is an object."""

_MEANT = {
    **{key: key for key in (*_KEYS, *_TOP_KEYS)},
    **dict.fromkeys(("ip", "address", "addresses", "host"), "ips"),
    **dict.fromkeys(("name", "user", "login"), "ssh"),
    **dict.fromkeys(("budget", "ram"), "memory"),
    **dict.fromkeys(("machines", "nodes"), "hosts"),
}
"""What people write, and what it is called."""

_FORM = (
    'it is a list such as [{"ssh": "first", "ips": ["192.168.1.10"]}, '
    '{"ssh": "second", "ips": ["192.168.1.11"]}], this machine first'
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of a cluster.

    Attributes:
        name: what errors and tables call it, and no other.
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
        _require_known(document, _TOP_KEYS, _OTHERS_TOP_KEYS, str(path))
        document = document.get("hosts")
    if not isinstance(document, list) or len(document) < 2:
        raise ConfigError(f"{path} does not name two machines or more", hint=_FORM)
    if len(document) > MAX_MACHINES:
        raise ConfigError(
            f"{path} names {len(document)} machines",
            hint=f"a cluster has {MAX_MACHINES} at most",
        )
    machines = _named_apart(
        [_machine(entry, number, path) for number, entry in enumerate(document, 1)]
    )
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


def _named_apart(machines: list[Machine]) -> list[Machine]:
    """Return machines of which no two have the same name: one ssh name may have several ports."""
    counts = Counter(machine.name for machine in machines)
    return [
        replace(machine, name=f"{machine.name} at {machine.address}")
        if counts[machine.name] > 1 and machine.ssh is not None
        else machine
        for machine in machines
    ]


def _machine(entry: Any, number: int, path: Path) -> Machine:
    """Return a machine of the file, in which it has this number. Raises ConfigError."""
    if isinstance(entry, list):
        entry = {"ips": entry}
    if not isinstance(entry, dict):
        raise ConfigError(f"{path} has {quoted(entry)} for machine {number}", hint=_FORM)
    try:
        return _machine_from(entry)
    except ConfigError as error:
        raise ConfigError(f"{path}, machine {number}: {error.message}", hint=error.hint) from error


def _machine_from(entry: Mapping[str, Any]) -> Machine:
    _require_known(entry, _KEYS, _OTHERS_KEYS, "it")
    addresses, ssh, port = entry.get("ips"), entry.get("ssh"), entry.get("port", DEFAULT_PORT)
    memory = entry.get("memory")
    if addresses == []:
        raise ConfigError(
            "it has no address",
            hint="MLX needs those of the first machine alone, and edgellm each one's: "
            '"ips": ["192.168.1.11"]',
        )
    if not isinstance(addresses, list) or not isinstance(addresses[0], str):
        raise ConfigError("it has no address", hint=_FORM)
    for key, value in (("ssh", ssh), ("memory", memory)):
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{key} is {quoted(value)}", hint=_FORM)
    if not is_int(port) or not 0 < port < 1 << 16:
        raise ConfigError(f"port is {quoted(port)}", hint="a port is 1 to 65535")
    if ssh is not None and not _is_ssh_name(ssh):
        raise ConfigError(f"ssh is {quoted(ssh)}, which names no machine", hint=_FORM)
    parse_memory(memory, MAX_SIZE)
    address = parse_address(addresses[0], port)
    return Machine(ssh or str(address), address, ssh, memory)


def _require_known(
    entry: Mapping[str, Any], ours: tuple[str, ...], others: set[str], what: str
) -> None:
    """Raise ConfigError where a key is neither ours nor one that other programs have.

    Keys that begin with ``_`` or ``/`` are comments, for which JSON has no form.
    """
    for key in entry:
        if key in ours or key in others or key.startswith(("_", "/")):
            continue
        close = get_close_matches(key.lower(), _MEANT, n=1)
        meant = _MEANT[close[0]] if close else None
        raise ConfigError(
            f"{what} has the key {quoted(key)}, which means nothing here",
            hint=f"did you mean {meant}?"
            if meant in ours
            else f"there are {', '.join(ours)}; a comment's key begins with _",
        )


def _is_ssh_name(ssh: str) -> bool:
    return (
        0 < len(ssh) <= MAX_NAME
        and ssh.isprintable()
        and " " not in ssh
        and not ssh.startswith("-")
    )
