"""A rank: a worker that computes its part of every matrix as it is told.

The first order says which rank of how many it is, where they meet, and what they load; each one
after it has a ``do``. A rank that waits in vain for the others says ``lost`` and ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from edgellm.bench.backends.registry import RuntimeSettings
from edgellm.bench.torch_backend.runtime import CPURuntime, CUDARuntime, require_gpu
from edgellm.bench.torch_backend.shard import LostRanksError, Shard, meet
from edgellm.bench.worker.protocol import Message, Send, run_worker
from edgellm.device import machine
from edgellm.errors import BackendError

Runtime = CPURuntime | CUDARuntime


def serve(order: Message, orders: Iterator[Message], send: Send) -> None:
    """Meet the other ranks, load a part of the model, and do what is asked."""
    # they listen for each other on this machine alone
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
    try:
        runtime = _opened(order)
        send(
            {
                "device": runtime.device,
                "arithmetic": runtime.arithmetic,
                "weight_bytes_per_token": runtime.weight_bytes_per_token,
            }
        )
        for asked in orders:
            send(_WORK[asked["do"]](runtime, asked) or {"done": True})
        dist.destroy_process_group()
    except LostRanksError as error:
        send({"lost": error.message})


def _opened(order: Message) -> Runtime:
    """Return this rank's part of the model, once all ranks are there."""
    shard = Shard(order["rank"], order["size"])
    settings = RuntimeSettings(**order["settings"])
    on_gpu = order["device"] == "cuda"
    if on_gpu:
        _take_gpu(shard)
        # a graph of steps in which ranks meet has not been tried
        settings = replace(settings, compile=False)
    meet(
        lambda: dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            init_method=f"file://{order['meeting']}",
            rank=shard.rank,
            world_size=shard.size,
            timeout=timedelta(seconds=order["patience"]),
        )
    )
    return (CUDARuntime if on_gpu else CPURuntime)(order["model"], settings, shard)


def _take_gpu(shard: Shard) -> None:
    """Have this process compute on a GPU of its own. Raises BackendError."""
    require_gpu()
    found = torch.cuda.device_count()
    if found < shard.size:
        raise BackendError(
            f"{shard.size} ranks need as many GPUs, and torch finds {found}",
            hint=f"give --tensor-parallel {found}" if found > 1 else "leave out --tensor-parallel",
        )
    torch.cuda.set_device(shard.rank)


def _begin(runtime: Runtime, asked: Message) -> None:
    runtime.begin(batch=asked["batch"], capacity=asked["capacity"])


def _prefill(runtime: Runtime, asked: Message) -> None:
    runtime.prefill(np.array(asked["tokens"], dtype=np.int64))


def _decode(runtime: Runtime, asked: Message) -> None:
    runtime.decode(asked["count"])


def _last_tokens(runtime: Runtime, _: Message) -> Mapping[str, Any]:
    return {"tokens": runtime.last_tokens()}


def _logits(runtime: Runtime, asked: Message) -> None:
    """Write the logits to a file: a line of JSON would take seconds."""
    found = runtime.logits(asked["tokens"])
    if dist.get_rank() == 0:
        np.save(asked["file"], found)


def _peak(runtime: Runtime, _: Message) -> Mapping[str, Any]:
    if isinstance(runtime, CUDARuntime):
        return {"bytes": runtime.peak_device_memory()}
    return {"bytes": machine.peak_process_memory()}


def _rates(runtime: Runtime, _: Message) -> Mapping[str, Any] | None:
    if not isinstance(runtime, CUDARuntime):
        return None
    rates = runtime.measure_rates()
    assert rates is not None, "it is on a GPU"
    return {"read": rates.bytes_per_second, "multiply": rates.flops_per_second}


_WORK: Mapping[str, Callable[[Any, Message], Mapping[str, Any] | None]] = {
    "begin": _begin,
    "prefill": _prefill,
    "decode": _decode,
    "last_tokens": _last_tokens,
    "logits": _logits,
    "peak": _peak,
    "rates": _rates,
}

if __name__ == "__main__":
    run_worker(serve)
