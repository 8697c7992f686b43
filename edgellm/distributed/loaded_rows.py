"""A model of which each machine has some rows of every matrix."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

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
from edgellm.distributed.parts.changes import changes_bytes
from edgellm.distributed.parts.open_rows import open_rows
from edgellm.distributed.parts.output import with_output_rows
from edgellm.distributed.parts.part import MakeReader, shared_settings
from edgellm.distributed.parts.row_pass import gathered_columns
from edgellm.distributed.parts.rows import Bounds, checkpoint_rows
from edgellm.distributed.remote.cluster_layers import ClusterCaches
from edgellm.distributed.remote.gathered_pass import gather_head, make_gathered_pass
from edgellm.distributed.remote.peer import opening_all
from edgellm.distributed.remote.row_layers import GatheredLayers
from edgellm.distributed.row_choice import ChosenRows
from edgellm.distributed.supply.part_file import Wanted
from edgellm.distributed.supply.sending import supplied
from edgellm.prompt_cache.disk_cache import prompt_cache_for
from edgellm.runtime.caches import LayerCaches
from edgellm.runtime.loader import LoadProgress, load_model


def load_rows(
    gathered: Gathered,
    chosen: ChosenRows,
    make_reader: MakeReader,
    progress: LoadProgress | None,
    on_failure: ExitStack,
) -> Opened:
    """Load each machine's rows."""
    checkpoint, settings, peers = gathered.checkpoint, gathered.settings, gathered.peers
    shares, output = chosen.shares, chosen.output
    rows_of_output: Sequence[Bounds | None] = output or [None] * len(shares)
    wanted = [
        Wanted.of_rows(checkpoint, share, own)
        for share, own in zip(shares[1:], rows_of_output[1:], strict=True)
    ]
    tellings = supplied(checkpoint, peers, wanted, gathered.sending)
    prompts = prompt_cache_for(
        checkpoint, settings, kv_bits=settings.kv_bits, adapter=gathered.adapter
    )
    heads = [
        {
            "ask": "open",
            "rows": share.as_dict(),
            "output": own,
            "settings": shared_settings(settings),
            "keeps": prompts and prompts.key,
            **telling,
        }
        for share, own, telling in zip(shares[1:], rows_of_output[1:], tellings, strict=True)
    ]
    changes = [gathered.changes_of(share) for share in shares]
    openings = [opening_with(head, own) for head, own in zip(heads, changes[1:], strict=True)]
    with opening_all(peers, openings) as replies, borrowed_stream():
        part = open_rows(
            checkpoint,
            shares[0],
            settings,
            layers_only=False,
            output=None if output is None else output[0],
            changes=changes[0],
            adapter_bytes=gathered.adapter_bytes(0, changes_bytes(changes[0])),
            progress=progress,
            make_reader=make_reader,
        )
        on_failure.callback(part.close)
        # embedding, norm and output matrix: the layers are there already
        outer, outer_plan = replace(checkpoint, layers=()), replace(part.plan, resident=True)
        if output is not None and checkpoint.lm_head is not None:
            outer = with_output_rows(outer, output[0])
        model = load_model(outer, replace(outer_plan, pinned=()), part.reader, settings)
        on_failure.callback(model.close)
        answers = require_answers(gathered, replies())
    plans, count = plans_of(part.plan, answers), len(checkpoint.layers)
    model.layers = layers = GatheredLayers(
        part,
        peers,
        openings,
        shares=shares,
        columns=gathered_columns(checkpoint.config, shares),
        output=output,
        wait=settings.machine_wait,
        streams_weights=any(not plan["resident"] for plan in plans),
    )
    if output is not None:
        gather_head(model, part.layers, layers, output[0])
    model.whole_pass = make_gathered_pass(model, layers)
    layers.meet()
    caches = ClusterCaches(
        part.caches,
        [
            (peer, LayerCaches(checkpoint_rows(checkpoint, share), part.plan))
            for peer, share in zip(peers, shares[1:], strict=True)
        ],
    )
    plan = joined_plan([range(count)] * len(plans), plans, part.plan)
    inner = checkpoint.config.intermediate_size
    fractions = [(share.inner[1] - share.inner[0]) / inner for share in shares]
    named = machine_shares(
        gathered, [(count, fraction) for fraction in fractions], plans, split="rows"
    )
    kept = kept_prompts(gathered, prompts, shares[0].as_dict(), count)
    return Opened(model, plan, caches, part.reader, named, kept)
