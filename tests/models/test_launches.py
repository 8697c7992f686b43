"""The kernels that a GPU launches for a layer and a token, counted in the graph, beside mlx-lm's.

On a CPU MLX takes its fast kernels apart, so here each is replaced by a single operation on the
same arrays.
"""

import io
import re
import subprocess
import sys

import mlx.core as mx
import pytest
from support.paths import ROOT

from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.kv_cache.cache import KVCache, stored
from edgellm.kv_cache.kv_format import KVFormat, attention
from edgellm.models.llama import Block
from edgellm.reading.disk_reader import DiskReader
from edgellm.runtime.loader import make_caches

VIEWS = {
    "Slice",
    "Reshape",
    "Flatten",
    "Unflatten",
    "Transpose",
    "Broadcast",
    "Split",
    "Squeeze",
    "ExpandDims",
}
"""What only says how memory is read, and launches nothing."""


@pytest.fixture
def whole_kernels(monkeypatch):
    """Stand-ins of one operation each, as on a GPU; nothing is evaluated with them."""

    def attention(queries, keys, values, *, scale, mask=None, **_):
        together = mx.concatenate([queries.flatten(), keys.flatten(), values.flatten()])
        return together[: queries.size].reshape(queries.shape)

    monkeypatch.setattr(mx.fast, "rms_norm", lambda x, weight, eps: mx.abs(x))
    monkeypatch.setattr(mx.fast, "rope", lambda x, *args, **settings: mx.negative(x))
    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", attention)


def launches(*arrays):
    """The operations that these unevaluated arrays stand for, save views, and how often each."""
    graph = io.StringIO()
    mx.export_to_dot(graph, *arrays)
    found = [
        label for label in re.findall(r'label ="(\w+)"', graph.getvalue()) if label not in VIEWS
    ]
    return {label: found.count(label) for label in sorted(set(found))}


def our_launches(folder, sequences=1):
    checkpoint = read_checkpoint(folder)
    part = checkpoint.layers[1]
    buffer, reader = WeightBuffer(part.layout.nbytes), DiskReader()
    reader.submit(part.extents, buffer.memory).wait()
    reader.close()
    caches = [
        make_caches(checkpoint, capacity=64, window=None, reserve=64)[1] for _ in range(sequences)
    ]
    for number, cache in enumerate(caches):
        past = (1, checkpoint.config.num_key_value_heads, 5 + number, checkpoint.config.head_dim)
        cache.update(mx.zeros(past), mx.zeros(past))
    hidden = mx.zeros((1, sequences, checkpoint.config.hidden_size))
    mx.eval(hidden, *stored(caches))
    block = Block(
        checkpoint.config,
        checkpoint.config.layer(1),
        buffer.arrays(part.layout),
        part.quantizations.__getitem__,
        fused=True,
    )
    return launches(block(hidden, [(cache, 1) for cache in caches]))


def their_launches(folder):
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    model, config = load_model(folder)
    cache = make_prompt_cache(model)[1]
    cache.update_and_fetch(
        *(mx.zeros((1, config["num_key_value_heads"], 5, config["head_dim"])),) * 2
    )
    hidden = mx.zeros((1, 1, config["hidden_size"]))
    mx.eval(hidden, cache.keys, cache.values)
    return launches(model.layers[1](hidden, None, cache))


@pytest.fixture(params=[4, 16])
def llama(request, tiny_folder, tmp_path):
    convert(tiny_folder("llama-3.1"), tmp_path / "made", bits=request.param)
    return tmp_path / "made"


@pytest.mark.usefixtures("whole_kernels")
def test_a_layer_and_token_take_fewer_launches_than_mlx_lms(llama):
    ours, theirs = our_launches(llama), their_launches(llama)
    assert sum(theirs.values()) >= 17, theirs
    assert sum(ours.values()) <= 13, ours
    products = ours.get("QuantizedMatmul", 0) + ours.get("Matmul", 0)
    assert products == 4
    assert ours["SliceUpdate"] == 2


@pytest.mark.usefixtures("whole_kernels")
def test_eight_sequences_share_all_but_attention_and_their_caches(llama):
    ours = our_launches(llama, sequences=8)
    assert sum(ours.values()) <= 10 + 3 * 8 + 1, ours
    assert ours["SliceUpdate"] == 2 * 8


@pytest.mark.usefixtures("whole_kernels")
@pytest.mark.parametrize(("kind", "most"), [("qwen2", 14), ("qwen3", 16)])
def test_biases_and_norms_of_heads_add_what_they_must(kind, most, tiny_folder, tmp_path):
    convert(tiny_folder(kind), tmp_path / "made", bits=4)
    ours, theirs = our_launches(tmp_path / "made"), their_launches(tmp_path / "made")
    assert sum(ours.values()) <= most < sum(theirs.values()), (ours, theirs)


ENDS_WITH_ITS_THREADS = """
import threading
import mlx.core as mx
from edgellm.models.llama import compiled, silu_gate
def compute():
    compiled(silu_gate)(mx.ones((1, 3, 32)), mx.ones((1, 3, 32)))
threads = [threading.Thread(target=compute) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_threads_that_used_compiled_kernels_leave_a_process_that_ends():
    """With one compiled function for all threads, 7 of 20 such processes were aborted."""
    for _ in range(6):
        done = subprocess.run(
            [sys.executable, "-c", ENDS_WITH_ITS_THREADS],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_attention_over_a_packed_cache_takes_nine_launches():
    """One joins keys and values, one packs, three write; scale, two products, softmax."""
    cache = KVCache(KVFormat(4, 64, mx.float16, 8), capacity=64, reserve=64)
    cache.update(*(mx.zeros((1, 4, 5, 64), mx.float16),) * 2)
    queries, keys, values = (mx.zeros((1, heads, 1, 64), mx.float16) for heads in (32, 4, 4))
    mx.eval(queries, keys, values, *cache.arrays)
    held, behind, mask = cache.update(keys, values)
    found = launches(attention(queries, held, behind, scale=0.125, mask=mask))
    assert sum(found.values()) <= 9, found
    assert found["QuantizedMatmul"] == 2
