"""Clusters on this machine: other machines are threads, or processes of their own."""

import json
import threading
from bisect import bisect_left
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count

import numpy as np
import pytest
from support.paged import CONTEXT, PROMPT, pinning_budget

import edgellm
from edgellm.checkpoint.buffer import PAGE
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.distributed import cluster
from edgellm.distributed.links.addresses import Address
from edgellm.distributed.links.machines import secret_file
from edgellm.distributed.links.secret import new_secret, write_secret
from edgellm.distributed.members.member import Member
from edgellm.distributed.members.session import Session
from edgellm.distributed.parts.open_rows import plan_rows
from edgellm.distributed.parts.rows import share_rows
from edgellm.distributed.row_choice import chosen_rows
from edgellm.distributed.supply.part_folder import PartFolder
from edgellm.runtime.loader import open_reader
from edgellm.settings import LoadSettings

PROMPTS = [PROMPT[:5], PROMPT, PROMPT[2:], PROMPT * 3]


def write_hosts(folder, ports, secret, *, host="127.0.0.1"):
    """Write the file that names this machine and others on these ports, and the secret."""
    folder.mkdir(parents=True, exist_ok=True)
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[host], *([f"{host}:{port}"] for port in ports)]))
    write_secret(secret_file(hosts), secret)
    return hosts


@contextmanager
def members(
    model, place, memories, make_reader=open_reader, *, make_session=Session, held=None, said=None
):
    """Machines in threads of this process, one per budget; yields the file that names them.

    They have the folder ``model``, or what ``held`` makes of nothing; lines go to ``said``.
    """
    secret, said = new_secret(), [] if said is None else said
    with ExitStack() as ended:
        found = []
        for memory in memories:
            settings = LoadSettings(memory=memory, threads=1)
            member = Member(
                held() if held else read_checkpoint(model),
                settings,
                Address("127.0.0.1", 0),
                secret.encode(),
                say=said.append,
                make_reader=make_reader,
                make_session=make_session,
            )
            thread = threading.Thread(target=member.serve)
            thread.start()
            ended.callback(thread.join)
            ended.callback(member.close)
            found.append(member)
        yield write_hosts(place, [member.port for member in found], secret)


def parts_in(place):
    """A function that makes what machines have of a model that they lack: nothing yet.

    What each of them is sent comes into a folder of its own in ``place``.
    """
    numbers = count()
    return lambda: PartFolder(cache=place / f"machine-{next(numbers)}")


def part_budget(model, layers, pinned, *, outer=False, **keywords):
    """A budget in which a machine with so many layers pins so many of them, and pages the rest."""
    part = read_checkpoint(model).with_layers(range(layers))
    return pinning_budget(part, pinned, keywords, layers_only=not outer)


def rows_budget(model, place, weights, pinned, **keywords):
    """A budget in which a machine's rows of so many layers are pinned, and the others are paged.

    Args:
        model: the folder.
        place: the machine's; the first one has embedding and output matrix, too.
        weights: by which all machines share the rows.
        pinned: layers.
        keywords: of ``LoadSettings``.
    """
    checkpoint = read_checkpoint(model)
    share = share_rows(checkpoint.config, weights)[place]

    def pins(memory):
        settings = LoadSettings(**{"context": CONTEXT, "memory": memory} | keywords)
        try:
            plan = plan_rows(checkpoint, share, settings, layers_only=place > 0)
        except edgellm.MemoryBudgetError:
            return False
        return len(plan.pinned) >= pinned

    pages = range(PAGE, 1 << 26, PAGE)
    return pages[bisect_left(pages, True, key=pins)]


@contextmanager
def output_by_rows():
    """Let each machine have rows of the output matrix, however long its logits take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "choose_shares", partial(chosen_rows, by_rows=True))
        yield


def answers(llm):
    """Return what a model computes alone, in a batch of four, and with draft tokens."""
    logits = np.array(llm.logits(PROMPT * 2))
    batch = [completion.text for completion in llm.generate_batch(PROMPTS, max_tokens=12)]
    drafted = llm.generate(PROMPT * 2, max_tokens=20)
    return logits, batch, drafted.text, [score.logprob for score in llm.score([(PROMPT, PROMPT)])]


def answers_of_one(folder, **load):
    """Return what one machine computes."""
    with edgellm.load(folder, memory="500MB", **load) as llm:
        return answers(llm)


def require_equal(one, many):
    """Require the same answers, bit for bit."""
    assert np.array_equal(one[0], many[0])
    assert one[1:] == many[1:]
