"""A rank of mlx-lm, which computes alone or, where MLX finds others, by its tensor split.

    python -m edgellm.bench.studies.clusters.peers.mlx_rank MODEL TOKENS

The first rank prints the seconds of each token, a line each.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import mlx.core as mx

PROMPT_TOKEN = 5
WARM = 2
"""Tokens before those that are timed."""


def main() -> None:
    """Decode greedily."""
    # it takes seconds to import, and help needs none of it
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model, sharded_load

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("tokens", type=int)
    asked = parser.parse_args()
    group = mx.distributed.init()
    model: Any
    if group.size() > 1:
        model = sharded_load(asked.model, tensor_group=group)[0]
    else:
        model = load_model(Path(asked.model))[0]
    # as the bench's backend has it: in 16 bits MLX's products on a processor take far longer
    model.set_dtype(mx.float32)
    cache, token = make_prompt_cache(model), PROMPT_TOKEN
    for number in range(WARM + asked.tokens):
        begun = time.perf_counter()
        token = int(model(mx.array([[token]]), cache=cache)[0, -1].argmax().item())
        if group.rank() == 0 and number >= WARM:
            sys.stdout.write(f"{time.perf_counter() - begun}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
