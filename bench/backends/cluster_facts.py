"""Fields of a record about several machines: each of them, the links, the split."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgellm.checkpoint.checkpoint import Checkpoint
from edgellm.distributed.remote.cluster_layers import ClusterLayers
from edgellm.distributed.remote.link_speed import measure_link
from edgellm.llm import LLM

HIDDEN_BYTES = 4
"""Of a feature of a hidden state, on its way between machines."""


def cluster_fields(llm: LLM) -> dict[str, Any]:
    """Return fields of a record, of which the links are measured now; none of one machine.

    Raises MachineError where a machine is gone.
    """
    layers = llm.model.layers
    if not isinstance(layers, ClusterLayers):
        return {}
    assert isinstance(llm.checkpoint, Checkpoint), "mlx-lm's models are on one machine"
    token_bytes = HIDDEN_BYTES * llm.checkpoint.config.hidden_size
    first, *others = (share.name for share in llm.machines)
    return {
        "split": llm.machines[0].split,
        "machines": [asdict(share) for share in llm.machines],
        "links": [
            {"first": first, "second": name, **asdict(measure_link(peer, token_bytes))}
            for name, peer in zip(others, layers.peers, strict=True)
        ],
    }
