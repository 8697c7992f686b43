"""Clusters on this machine: other machines are threads, or processes of their own."""

import json
import threading
from contextlib import ExitStack, contextmanager

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.distributed.links.addresses import Address
from edgellm.distributed.links.machines import secret_file
from edgellm.distributed.links.secret import new_secret, write_secret
from edgellm.distributed.members.member import Member
from edgellm.errors import MemoryBudgetError
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.runtime.loader import open_reader
from edgellm.settings import LoadSettings

CONTEXT = 96


def write_hosts(folder, ports, secret, *, host="127.0.0.1"):
    """Write the file that names this machine and others on these ports, and the secret."""
    folder.mkdir(parents=True, exist_ok=True)
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[host], *([f"{host}:{port}"] for port in ports)]))
    write_secret(secret_file(hosts), secret)
    return hosts


@contextmanager
def members(model, place, memories, make_reader=open_reader):
    """Machines in threads of this process, one per budget; yields the file that names them."""
    secret, said = new_secret(), []
    with ExitStack() as ended:
        found = []
        for memory in memories:
            settings = LoadSettings(memory=memory, threads=1)
            member = Member(
                read_checkpoint(model),
                settings,
                Address("127.0.0.1", 0),
                secret.encode(),
                say=said.append,
                make_reader=make_reader,
            )
            thread = threading.Thread(target=member.serve)
            thread.start()
            ended.callback(thread.join)
            ended.callback(member.close)
            found.append(member)
        yield write_hosts(place, [member.port for member in found], secret)


def part_budget(model, layers, pinned, *, outer=False, **keywords):
    """A budget in which a machine with so many layers pins so many of them, and pages the rest."""
    part = read_checkpoint(model).with_layers(range(layers))
    low, high = 1, 1 << 32
    while low < high:
        middle = (low + high) // 2
        settings = LoadSettings(**{"context": CONTEXT, "memory": middle} | keywords)
        try:
            plan = plan_for(part, settings, layers_only=not outer)
        except MemoryBudgetError:
            low = middle + 1
            continue
        if len(plan.pinned) >= pinned:
            high = middle
        else:
            low = middle + 1
    return low
