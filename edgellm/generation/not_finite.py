"""Where in a model numbers stop being finite, as its KV caches show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import mlx.core as mx

from edgellm.errors import NotFiniteError
from edgellm.kv_cache.cache import Cache
from edgellm.sampling.finite import require_finite


def require_finite_logits(largest_logits: mx.array, *caches: Sequence[Cache]) -> None:
    """Raise the ``located`` NotFiniteError where ``require_finite`` raises one."""
    try:
        require_finite(largest_logits)
    except NotFiniteError as error:
        raise located(error, *caches) from None


def located(error: NotFiniteError, *caches: Sequence[Cache]) -> NotFiniteError:
    """Return an error about a model's logits that also names the first layer that shows it.

    Keys and values of a layer are made of what the layers before it made, so nothing has to be
    computed again to know.

    Args:
        error: says that logits are not finite.
        caches: of one sequence or several, one per layer, with the tokens after which they are not.
    """
    where = "keys and values of all layers are, so it is the last layer, the norm or the head"
    by_sequence = [
        chain.from_iterable(cache.finite_layers() for cache in sequence) for sequence in caches
    ]
    for number, layer in enumerate(zip(*by_sequence, strict=True)):
        if not all(layer):
            where = f"keys and values of layer {number} are the first"
            break
    return NotFiniteError(f"{error.message}: {where}", hint=error.hint)
