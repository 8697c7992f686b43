"""A model on several machines becomes an ``LLM``, which knows no difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from edgellm.device.streams import borrowed_stream
from edgellm.distributed.choice import choose_split
from edgellm.distributed.forecast import choose_cut
from edgellm.distributed.gathered import (
    Gathered,
    gather,
    require_same_arithmetic,
)
from edgellm.distributed.parts.changes import GivenChanges, changes_bytes, packed_changes
from edgellm.distributed.parts.cut import Cut
from edgellm.distributed.parts.open_rows import open_rows
from edgellm.distributed.parts.output import with_output_rows
from edgellm.distributed.parts.part import MakeReader, arithmetic_facts, part_name, shared_settings
from edgellm.distributed.parts.row_pass import gathered_columns
from edgellm.distributed.parts.rows import Bounds, checkpoint_rows
from edgellm.distributed.rates import Rates
from edgellm.distributed.remote.cluster_layers import ClusterCaches
from edgellm.distributed.remote.gathered_pass import gather_head, make_gathered_pass
from edgellm.distributed.remote.kept_prompts import ClusterPromptCache
from edgellm.distributed.remote.peer import Opening, Reply, opening_all
from edgellm.distributed.remote.remote_layers import RemoteLayers
from edgellm.distributed.remote.row_layers import GatheredLayers
from edgellm.distributed.row_choice import ChosenRows, choose_shares
from edgellm.distributed.shares import MachineShare, machine_shares
from edgellm.distributed.supply.part_file import Wanted
from edgellm.distributed.supply.sending import supplied
from edgellm.memory_plan.plan import Plan
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.models.layers import LayerChange, WindowedLayers
from edgellm.models.model import Model
from edgellm.models.through_mlx_lm.checkpoint import AnyCheckpoint
from edgellm.prompt_cache.disk_cache import PromptCache, prompt_cache_for
from edgellm.reading.disk_reader import Reader
from edgellm.runtime.caches import LayerCaches
from edgellm.runtime.loader import LoadProgress, SendProgress, load_model, open_reader
from edgellm.settings import LoadSettings


@dataclass(frozen=True, slots=True)
class Opened:
    """A model on several machines.

    Attributes:
        model: the model; closing it lets the other machines go.
        plan: of all machines together.
        caches: makes the caches of a sequence.
        reader: reads this machine's layers.
        shares: each machine, this one first, with its part.
        prompt_cache: the prefix cache on disk; None where the settings want none.
    """

    model: Model
    plan: Plan
    caches: ClusterCaches
    reader: Reader
    shares: Sequence[MachineShare]
    prompt_cache: PromptCache | None


def open_cluster(
    checkpoint: AnyCheckpoint,
    settings: LoadSettings,
    *,
    progress: LoadProgress | None = None,
    sending: SendProgress | None = None,
    cut: Cut | None = None,
    make_reader: MakeReader = open_reader,
) -> Opened:
    """Load a model on this machine and those that ``settings.machines`` names.

    Args:
        checkpoint: the model.
        settings: as for ``load``; memory and threads are this machine's.
        progress: told of the bytes that arrive here.
        sending: told of those that are sent to machines which have not got the model.
        cut: which machine has which layers; None: by their memories and disks, or rows of each,
            as ``settings.split`` says.
        make_reader: opens what reads this machine's layers.

    Raises:
        MachineError: a machine cannot be reached, refuses, or is not like this one.
        ConfigError, MemoryBudgetError, ReadError: as ``load``, here or there.
    """
    with ExitStack() as on_failure:
        gathered = replace(gather(checkpoint, settings, on_failure), sending=sending)
        rates = Rates(gathered)
        if cut is None and choose_split(gathered, rates) == "rows":
            chosen = choose_shares(gathered, rates)
            opened = _open_rows(gathered, chosen, make_reader, progress, on_failure)
        else:
            cut = cut or choose_cut(gathered, rates).cut
            opened = _open_parts(gathered, cut, make_reader, progress, on_failure)
        on_failure.pop_all()
    return opened


def _open_parts(
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
        _opening(head, gathered.changes_of(layers))
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
        answers = _answers(gathered, replies())
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
        streams_weights=any(not plan["resident"] for plan in _plans(local_plan, answers)),
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
    plans = _plans(local_plan, answers)
    count = len(checkpoint.layers)
    shares = machine_shares(
        gathered,
        [(len(layers), len(layers) / count) for layers in cut.layers],
        plans,
        split="windows",
    )
    plan = joined_plan(cut.layers, plans, local_plan)
    own = list(cut.layers[0])
    kept = _kept(gathered, prompts, own, len(own))
    return Opened(model, plan, caches, reader, shares, kept)


def _open_rows(
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
    openings = [_opening(head, own) for head, own in zip(heads, changes[1:], strict=True)]
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
        answers = _answers(gathered, replies())
    plans, count = _plans(part.plan, answers), len(checkpoint.layers)
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
    kept = _kept(gathered, prompts, shares[0].as_dict(), count)
    return Opened(model, plan, caches, part.reader, named, kept)


def _opening(head: dict[str, Any], changes: Sequence[LayerChange]) -> Opening:
    """Return the first request to a machine, with an adapter's changes of its layers."""
    if not changes:
        return Opening(head)
    told, body = packed_changes(changes)
    return Opening({**head, "changes": told}, body)


def _kept(
    gathered: Gathered, prompts: PromptCache | None, part: Any, local_count: int
) -> ClusterPromptCache | None:
    """Return the prefix cache on disk, of which each machine keeps its part."""
    if prompts is None:
        return None
    name = part_name(part, arithmetic_facts(gathered.checkpoint, gathered.settings))
    return ClusterPromptCache(prompts, name, local_count)


def _answers(gathered: Gathered, replies: Sequence[Reply]) -> list[Mapping[str, Any]]:
    """Return what the other machines say of their parts. Raises ConfigError."""
    own = arithmetic_facts(gathered.checkpoint, gathered.settings)
    answers = [answer for answer, _ in replies]
    for peer, answer in zip(gathered.peers, answers, strict=True):
        require_same_arithmetic(peer.machine, own, answer["arithmetic"])
    return answers


def _plans(local_plan: Plan, answers: Sequence[Any]) -> list[dict[str, Any]]:
    """Return each machine's plan, with its room for KV caches."""
    own = {**local_plan.as_dict(), "kv_budget": local_plan.kv_budget}
    return [own, *({**answer["plan"], "kv_budget": answer["kv_budget"]} for answer in answers)]


def joined_plan(
    parts: Sequence[Sequence[int]], plans: Sequence[dict[str, Any]], local: Plan
) -> Plan:
    """Return the plan of all machines as if they were one; ``parts`` are each one's layers.

    A layer of which any machine reads rows is one that streams.

    The machine with the least room for KV caches, in tokens, says how many tokens all have.
    """
    pinned, streamed = [], []
    for layers, plan in zip(parts, plans, strict=True):
        pinned += [layers[place] for place in plan["pinned"]]
        streamed += [layers[place] for place in plan["streamed"]]
    cache_bytes = sum(plan["cache_bytes"] for plan in plans)
    total_bytes = sum(plan["total_bytes"] for plan in plans)
    room = min(plan["kv_budget"] / plan["cache_bytes"] for plan in plans)
    return replace(
        local,
        budget=total_bytes - cache_bytes + int(cache_bytes * room),
        resident=not streamed,
        pinned=tuple(sorted(set(pinned) - set(streamed))),
        streamed=tuple(sorted(set(streamed))),
        prefill_chunk=min(plan["prefill_chunk"] for plan in plans),
        pinned_bytes=sum(plan["pinned_bytes"] for plan in plans),
        adapter_bytes=sum(plan["adapter_bytes"] for plan in plans),
        cache_bytes=cache_bytes,
        working_bytes=sum(plan["working_bytes"] for plan in plans),
        total_bytes=total_bytes,
        model_bytes=sum(plan["model_bytes"] for plan in plans),
        streamed_bytes=sum(plan["streamed_bytes"] for plan in plans),
        weight_bytes_per_token=sum(plan["weight_bytes_per_token"] for plan in plans),
    )
