"""``edgellm cluster status``: which machines are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.cli.cluster_commands.start import Hosts
from edgellm.cli.common import options


def status(hosts: Hosts, *, json: options.Json = False) -> None:
    """Show which machines of a file are there, and what they are."""
    from edgellm.console import terminal
    from edgellm.console.rows import show_rows
    from edgellm.distributed.links.machines import read_machines, secret_file
    from edgellm.distributed.links.secret import read_secret
    from edgellm.distributed.start import machine_status
    from edgellm.errors import MachineError
    from edgellm.files.given_path import given_path

    path = given_path(hosts)
    machines, secret = read_machines(path), read_secret(secret_file(path))
    found = {machine.name: machine_status(machine, secret) for machine in machines[1:]}
    refused = {name: why for name, facts in found.items() if (why := _why_not(name, facts))}
    if json:
        terminal.write_json({"machines": found})
    else:
        show_rows([(name, _line(facts, refused.get(name))) for name, facts in found.items()])
    if refused:
        raise MachineError(
            f"{len(refused)} of {len(found)} machines cannot be used: {', '.join(refused)}",
            hint="see their lines above; edgellm cluster start MODEL HOSTS starts machines, with a "
            "new secret",
        )


def _why_not(name: str, facts: Mapping[str, Any]) -> str | None:
    """Return why a machine does not compute for this one; None: it does."""
    from edgellm.distributed.parts.digests import require_alike, versions
    from edgellm.errors import MachineError

    if "error" in facts:
        return str(facts["error"])
    try:
        require_alike(name, versions(), facts["versions"], "version")
    except MachineError as error:
        return error.message
    return None


def _line(facts: Mapping[str, Any], refused: str | None) -> str:
    from edgellm.console.units import seconds, size

    if refused is not None:
        return refused
    state = "computes for a cluster" if facts["busy"] else "waits"
    versions = ", ".join(f"{key} {value}" for key, value in facts["versions"].items())
    return (
        f"{state}; {size(facts['budget'])}, {facts['chip']}, {versions}; "
        f"answered in {seconds(facts['seconds'])}"
    )
