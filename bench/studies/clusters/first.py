"""The first machine of a study: it loads a model in one way, and times its tokens.

    python -m edgellm.bench.studies.clusters.first MODEL SETTINGS

SETTINGS are one JSON object. What was measured is written as another one, in a line; then the model
stays open until standard input ends, so that others can see what idle machines do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np

from edgellm.checkpoint.checkpoint import Checkpoint, read_checkpoint
from edgellm.console.terminal import write_json
from edgellm.device.streams import borrowed_stream
from edgellm.distributed.choice import forecast_cluster
from edgellm.distributed.cluster import open_cluster
from edgellm.distributed.opened import Opened
from edgellm.distributed.parts.cut import cut_layers
from edgellm.distributed.remote.row_layers import GatheredLayers
from edgellm.kernels.thread_pool import ThreadPool, Words
from edgellm.kv_cache.cache import stored
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.models.model import Model
from edgellm.runtime.caches import LayerCaches
from edgellm.runtime.loader import load_model, open_reader
from edgellm.settings import LoadSettings

WARM = 2
"""Tokens before those that count: the disks then read in the order of the layers."""


def main() -> None:
    """Load, measure, and wait."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("settings", type=json.loads)
    asked = parser.parse_args()
    checkpoint = read_checkpoint(asked.model)
    given: dict[str, Any] = asked.settings
    kind, tokens = given.pop("kind"), given.pop("tokens")
    opener = _one if kind == "one" else _several
    with opener(checkpoint, given, kind) as (model, caches, facts), borrowed_stream():
        write_json({**facts, **_measured(model, caches, tokens)}, line=True)
        sys.stdout.flush()
        sys.stdin.read()


def _measured(model: Model, caches: LayerCaches | Any, tokens: int) -> dict[str, Any]:
    own = caches.make(capacity=WARM + tokens, reserve=WARM + tokens)
    times, digest = [], hashlib.sha256()
    parts: list[Parts] = []
    with _timed_kernels() as kernels:
        for token in range(WARM + tokens):
            parts.append(_parts(model, kernels))
            begun = time.perf_counter()
            logits = model(mx.array([[5 + token]]), own)
            mx.eval(logits, stored(own))
            times.append(time.perf_counter() - begun)
            digest.update(np.array(logits.astype(mx.float32)).tobytes())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    parts.append(_parts(model, kernels))
    each = [
        {name: after[name] - before[name] for name in after}
        for before, after in pairwise(parts[WARM:])
    ]
    return {"seconds": times[WARM:], "parts": each, "logits": digest.hexdigest(), "peak": peak}


Parts = dict[str, float]
"""So far: seconds of kernels and of gathers, and how many gathers."""


def _parts(model: Model, kernels: Sequence[float]) -> Parts:
    if not isinstance(model.layers, GatheredLayers):
        return {"kernels": sum(kernels)}
    mesh = model.layers.meet()
    found = {"kernels": sum(kernels) + mesh.computed}
    return found | {"gathers": mesh.seconds, "count": mesh.gathers}


@contextmanager
def _timed_kernels() -> Iterator[Sequence[float]]:
    """Yield a list that gets the seconds of each native call that Python makes meanwhile."""
    seconds: list[float] = []
    run = ThreadPool.run

    def timed(self: ThreadPool, steps: Words, call: Words, *, threads: int) -> None:
        begun = time.perf_counter()
        run(self, steps, call, threads=threads)
        seconds.append(time.perf_counter() - begun)

    with patch.object(ThreadPool, "run", timed):
        yield seconds


Ready = tuple[Model, Any, dict[str, Any]]


@contextmanager
def _one(checkpoint: Checkpoint, given: Mapping[str, Any], _: str) -> Iterator[Ready]:
    """Yield the model on this machine alone."""
    settings = LoadSettings(**given)
    plan = plan_for(checkpoint, settings)
    with ExitStack() as stack:
        reader = open_reader(checkpoint, plan)
        stack.callback(reader.close)
        with borrowed_stream():
            model = load_model(checkpoint, plan, reader, settings)
        stack.callback(model.close)
        yield model, LayerCaches(checkpoint, plan), {"plan": plan.as_dict()}


@contextmanager
def _several(checkpoint: Checkpoint, given: Mapping[str, Any], kind: str) -> Iterator[Ready]:
    """Yield the model on several machines; a kind is ``halves``, or what ``split`` may be."""
    settings = LoadSettings(split="rows" if kind == "rows" else "windows", **given)
    forecast = forecast_cluster(checkpoint, settings)
    cut = None
    if kind != "rows":  # the one that was forecast: another measurement may choose another one
        parts = forecast.chosen.parts
        pages = any(part.plan.streamed for part in parts)
        in_turns = pages and kind == "windows"
        cut = cut_layers([len(part.layers) for part in parts], in_turns=in_turns)
    opened: Opened = open_cluster(checkpoint, settings, cut=cut)
    with ExitStack() as stack:
        stack.callback(opened.reader.close)
        stack.callback(opened.model.close)
        yield opened.model, opened.caches, {"forecast": forecast.as_dict()}


if __name__ == "__main__":
    main()
