"""A machine that was lost is called again until it is there, and is the one that it was."""

from contextlib import closing

import pytest
from support.clusters import members
from support.paged import CONTEXT

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.distributed.links.machines import read_machines, secret_file
from edgellm.distributed.links.secret import read_secret
from edgellm.distributed.parts.part import shared_settings
from edgellm.distributed.remote.peer import Opening, Peer
from edgellm.distributed.remote.remote_cache import RemoteCache
from edgellm.errors import MachineError
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.runtime.caches import LayerCaches
from edgellm.settings import LoadSettings

ECHO = {"ask": "echo"}


@pytest.fixture
def call(tiny_folder, tmp_path):
    """A function that calls a machine."""
    with members(tiny_folder("llama-3.2"), tmp_path, ["500MB"]) as hosts:
        machine, secret = read_machines(hosts)[1], read_secret(secret_file(hosts))
        yield lambda: Peer(machine, secret)


def lose(peer):
    peer._data.fail("the cable is cut")
    with pytest.raises(MachineError, match="the cable is cut"):
        peer.request(ECHO)
    assert peer.is_lost


def test_one_that_was_busy_meanwhile_is_used_again(call):
    with closing(call()) as peer:
        lose(peer)
        with closing(call()), pytest.raises(MachineError, match="another cluster"):
            peer.join_again(Opening(ECHO))
        peer.join_again(Opening(ECHO))
        assert not peer.is_lost


def test_one_with_other_files_stays_refused(call):
    with closing(call()) as peer:
        peer.facts = {**peer.facts, "files": {}}  # of the machine that it was
        lose(peer)
        for _ in range(2):
            with pytest.raises(MachineError, match="other files"):
                peer.join_again(Opening(ECHO))
            assert peer.is_lost


def test_a_copy_of_what_is_gone_is_made_anew(call, tiny_folder):
    checkpoint = read_checkpoint(tiny_folder("llama-3.2"))
    settings = LoadSettings(memory="500MB", threads=1, context=CONTEXT)
    opening = {"ask": "open", "layers": [0], "settings": shared_settings(settings)}
    part = checkpoint.with_layers([0])
    layers = LayerCaches(part, plan_for(part, settings, layers_only=True))
    with closing(call()) as peer:
        peer.request(opening)
        cache = RemoteCache(peer, layers, capacity=CONTEXT, reserve=CONTEXT, context=None)
        lose(peer)
        peer.join_again(Opening(opening))
        twin = cache.copy_prefix(0, CONTEXT)
        twin.begin_pass()
        assert twin.finite_layers() == [True]
