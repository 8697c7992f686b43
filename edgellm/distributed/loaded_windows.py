"""A model whose layers are divided among machines: each has windows of whole layers."""

from __future__ import annotations

from contextlib import ExitStack

from edgellm.device.streams import borrowed_stream
from edgellm.distributed.gathered import Gathered
from edgellm.distributed.opened import (
    Opened,
    joined_plan,
    kept_prompts,
    machine_shares,
    opening_with,
    plans_of,
    require_answers,
)
from edgellm.distributed.parts.changes import GivenChanges, changes_bytes
from edgellm.distributed.parts.cut import Cut
from edgellm.distributed.parts.part import MakeReader, shared_settings
from edgellm.distributed.remote.cluster_layers import ClusterCaches
from edgellm.distributed.remote.peer import opening_all
from edgellm.distributed.remote.remote_layers import RemoteLayers
from edgellm.distributed.supply.part_file import Wanted
from edgellm.distributed.supply.sending import supplied
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.models.layers import WindowedLayers
from edgellm.prompt_cache.disk_cache import prompt_cache_for
from edgellm.runtime.caches import LayerCaches
from edgellm.runtime.loader import LoadProgress, load_model


def load_windows(
    gathered: Gathered,
    cut: Cut,
    make_reader: MakeReader,
    progress: LoadProgress | None,
    on_failure: ExitStack,
) -> Opened:
    """Load each machine's layers."""
    checkpoint, settings, peers = gathered.checkpoint, gathered.settings, gathered.peers
    own_part = checkpoint.with_layers(cut.layers[0])
    own_changes = gathered.changes_of(cut.layers[0])
    nbytes = gathered.adapter_bytes(0, changes_bytes(own_changes))
    local_plan = plan_for(own_part, settings, adapter_bytes=nbytes)
    wanted = [Wanted(layers) for layers in cut.layers[1:]]
    tellings = supplied(checkpoint, peers, wanted, gathered.sending)
    prompts = prompt_cache_for(
        checkpoint, settings, kv_bits=settings.kv_bits, adapter=gathered.adapter
    )
    heads = [
        {
            "ask": "open",
            "layers": list(layers),
            "settings": shared_settings(settings),
            "keeps": prompts and prompts.key,
            **telling,
        }
        for layers, telling in zip(cut.layers[1:], tellings, strict=True)
    ]
    openings = [
        opening_with(head, gathered.changes_of(layers))
        for head, layers in zip(heads, cut.layers[1:], strict=True)
    ]
    with opening_all(peers, openings) as replies:  # they load while this machine does
        reader = make_reader(own_part, local_plan)
        on_failure.callback(reader.close)
        with borrowed_stream():
            model = load_model(
                own_part,
                local_plan,
                reader,
                settings,
                adapter=GivenChanges(own_changes) if own_changes else None,
                progress=progress,
            )
        on_failure.callback(model.close)
        answers = require_answers(gathered, replies())
    local = model.layers
    assert isinstance(local, WindowedLayers), "mlx-lm's models, which are not, were refused"
    model.config = checkpoint.config
    model.whole_pass = None  # it knows this machine's layers alone
    model.layers = RemoteLayers(
        local,
        len(cut.layers[0]),
        peers,
        cut.windows,
        openings=openings,
        streams_weights=any(not plan["resident"] for plan in plans_of(local_plan, answers)),
        takes_trees=local.takes_trees and all(answer["takes_trees"] for answer in answers),
        wait=settings.machine_wait,
    )
    caches = ClusterCaches(
        LayerCaches(own_part, local_plan),
        [
            (peer, LayerCaches(checkpoint.with_layers(layers), local_plan))
            for peer, layers in zip(peers, cut.layers[1:], strict=True)
        ],
    )
    plans = plans_of(local_plan, answers)
    count = len(checkpoint.layers)
    shares = machine_shares(
        gathered,
        [(len(layers), len(layers) / count) for layers in cut.layers],
        plans,
        split="windows",
    )
    plan = joined_plan(cut.layers, plans, local_plan)
    own = list(cut.layers[0])
    kept = kept_prompts(gathered, prompts, own, len(own))
    return Opened(model, plan, caches, reader, shares, kept)
