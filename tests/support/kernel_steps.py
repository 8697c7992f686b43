"""Single steps of the CPU kernels, as the layers make them."""

import numpy as np

from edgellm.kernels.codegen.abi import ATTENTION, MERGE, SWIGLU
from edgellm.kernels.kernel_engine import float32_bits, make_step, step_array


def swiglu(engine, gate_up, *, threads=None):
    """Return the gated features of (L, 2F) float32."""
    tokens, width = gate_up.shape
    out = np.empty((tokens, width // 2), np.float32)
    addresses = {"gate_up": gate_up.ctypes.data, "out": out.ctypes.data}
    step = make_step(engine.kernel("swiglu"), SWIGLU, **addresses, inner=width // 2)
    with engine.lock:
        engine.run(step_array([step]), tokens, threads=threads)
    return out


def attend(engine, view, queries, *, kv_heads, splits=None, kernel="attention"):
    """Attend with queries (L, H, D) to a KVView, by attention and merge as the layers run them.

    ``splits`` replaces those that so many queries have.
    """
    tokens, heads, head_dim = queries.shape
    splits = splits or view.splits(tokens)
    partials = np.empty((tokens, heads, splits.count, head_dim + 2), np.float32)
    out = np.empty_like(queries)
    sizes = {"heads": heads, "head_dim": head_dim, "splits": splits.count}
    sizes["partials"] = partials.ctypes.data
    tables = ("key_scales", "key_biases", "value_scales", "value_biases")
    attention = sizes | {
        "queries": queries.ctypes.data,
        "row_bytes": queries.strides[0],
        "kv_heads": kv_heads,
        "keys": view.keys,
        "values": view.values,
        "head_bytes": view.head_bytes,
        "length": view.length,
        "window": view.window,
        "scale": float32_bits(head_dim**-0.5),
        "first_split": splits.first,
        "min_exponent": splits.min_exponent,
        "max_exponent": view.max_exponent,
        "item_splits": 2,
        "item_rows": 64,
        **dict(zip(tables, view.tables, strict=True)),
    }
    steps = [
        make_step(engine.kernel(kernel, view.kind, head_dim), ATTENTION, **attention),
        make_step(engine.kernel("merge"), MERGE, **sizes, out=out.ctypes.data),
    ]
    with engine.lock:
        engine.reserve_scratch(1 << 20)
        engine.run(step_array(steps), tokens)
    return out
