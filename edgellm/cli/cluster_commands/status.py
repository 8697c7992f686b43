"""``edgellm cluster status``: which machines are there."""

from __future__ import annotations

from edgellm.cli.cluster_commands.start import Hosts
from edgellm.cli.common import options


def status(hosts: Hosts, *, json: options.Json = False) -> None:
    """Show which machines of a file are there, and what they are."""
    from edgellm.console import terminal
    from edgellm.console.rows import show_rows
    from edgellm.console.units import seconds, size
    from edgellm.distributed.links.machines import read_machines, secret_file
    from edgellm.distributed.links.secret import read_secret
    from edgellm.distributed.start import machine_status
    from edgellm.errors import MachineError
    from edgellm.files.given_path import given_path

    path = given_path(hosts)
    machines, secret = read_machines(path), read_secret(secret_file(path))
    found = {machine.name: machine_status(machine, secret) for machine in machines[1:]}
    if json:
        terminal.write_json({"machines": found})
    else:
        rows = []
        for name, facts in found.items():
            if "error" in facts:
                rows.append((name, facts["error"]))
                continue
            state = "computes for a cluster" if facts["busy"] else "waits"
            versions = ", ".join(f"{key} {value}" for key, value in facts["versions"].items())
            rows.append(
                (
                    name,
                    f"{state}; {size(facts['budget'])}, {facts['chip']}, {versions}; "
                    f"answered in {seconds(facts['seconds'])}",
                )
            )
        show_rows(rows)
    missing = [name for name, facts in found.items() if "error" in facts]
    if missing:
        raise MachineError(
            f"{len(missing)} of {len(found)} machines are not there: {', '.join(missing)}",
            hint="start them: edgellm cluster start MODEL HOSTS",
        )
