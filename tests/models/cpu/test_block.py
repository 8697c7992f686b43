"""The native decoder layer against MLX's, for every kind of model and of cache."""

import threading
import warnings

import mlx.core as mx
import numpy as np
import pytest
from support.decoder_layers import distance, hidden_of, tensors_of
from support.tiny import CONFIGS, write_model

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.model_config import ModelConfig
from edgellm.checkpoint.quantization import Quantization
from edgellm.errors import ClosedError
from edgellm.hub.resolve import locate
from edgellm.kernels.host import kernel_engine, unavailable
from edgellm.kv_cache.cache import KVCache, stored
from edgellm.kv_cache.kv_format import KVFormat
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.models.arithmetic import arithmetic_of, engine_for, warn_slow
from edgellm.models.cpu.block import CpuBlock, CpuLayers, make_layer, make_layers
from edgellm.models.cpu.linear import CpuLinear, make_linear
from edgellm.models.layers import Span
from edgellm.models.linear import linear_from
from edgellm.models.llama import Block
from edgellm.reading.disk_reader import DiskReader
from edgellm.runtime.loader import load_model, make_caches
from edgellm.settings import DEFAULT_MODEL, LoadSettings
from edgellm.tokenizer import Tokenizer

pytestmark = [
    pytest.mark.skipif(unavailable() is not None, reason=str(unavailable())),
    pytest.mark.usefixtures("on_the_cpu"),
]

PLAIN = [None, Quantization(4, 32), Quantization(8, 64), Quantization(3, 32)]


@pytest.fixture(scope="module")
def floats():
    return kernel_engine(threads=2, activations="float")


def caches_of(config, window):
    kept = KVFormat(config.num_key_value_heads, config.head_dim, mx.float32)
    return [KVCache(kept, capacity=2000, window=window or None, reserve=10) for _ in range(2)]


def quantized(path, how):
    """A folder whose matrices are all stored in one way."""
    write_model(path, CONFIGS["llama-2"] | {"quantization": how.as_config()})
    file = str(path / "model.safetensors")
    tensors = mx.load(file)
    for name in [name for name, tensor in tensors.items() if tensor.ndim == 2]:
        parts = mx.quantize(tensors.pop(name), **how.as_config())
        for part, array in zip(("weight", "scales", "biases"), parts, strict=False):
            tensors[f"{name.removesuffix('weight')}{part}"] = array
    mx.save_safetensors(file, tensors, metadata={"format": "pt"})
    return path


def follow(config, plain, own, caches, lengths):
    """The largest distance of what both layers add, over some calls."""
    worst = 0.0
    for length in lengths:
        hidden = hidden_of(config, length)
        expected = plain(hidden, [(caches[0], length)])
        mx.eval(expected, *stored(caches[:1]))
        found = own(hidden, [(caches[1], length)])
        worst = max(worst, distance(found - hidden, expected - hidden))
        assert caches[0].offset == caches[1].offset
    return worst


@pytest.mark.parametrize("name", CONFIGS)
def test_every_kind_of_layer_is_mlx_own(name, floats):
    config = ModelConfig.from_dict(CONFIGS[name])
    for how in PLAIN[: 3 if config.head_dim != 24 else 2]:
        tensors = tensors_of(config, lambda _, how=how: how)
        layers = [
            make(tensors)
            for make in (
                lambda t, how=how: Block(config, config.layer(0), t, lambda _: how),
                lambda t, how=how: CpuBlock(floats, config, config.layer(0), t, lambda _: how),
            )
        ]
        for window in (0, 7):
            assert (
                follow(config, *layers, caches_of(config, window), (1, 3, 1, 9, 1, 20, 1, 1)) < 1e-5
            )


@pytest.mark.parametrize("window", [0, 100, 700])
def test_long_prompts_go_through_in_pieces(window, floats):
    config = ModelConfig.from_dict(CONFIGS["llama-2"])
    tensors = tensors_of(config, lambda _: None)
    layers = (
        Block(config, config.layer(0), tensors, lambda _: None),
        CpuBlock(floats, config, config.layer(0), tensors, lambda _: None),
    )
    assert follow(config, *layers, caches_of(config, window), (40, 1100, 1, 30)) < 1e-5


def test_matrices_of_a_stack_may_differ(floats):
    config = ModelConfig.from_dict(CONFIGS["llama-2"])

    def quantizations(path):
        return {"v": Quantization(8, 32), "u": Quantization(6, 32), "k": None}.get(
            path.split(".")[1][0], Quantization(4, 32)
        )

    tensors = tensors_of(config, quantizations)
    layers = (
        Block(config, config.layer(0), tensors, quantizations),
        CpuBlock(floats, config, config.layer(0), tensors, quantizations),
    )
    assert follow(config, *layers, caches_of(config, 0), (1, 12, 1)) < 1e-5


def test_int8_activations_stay_close():
    config = ModelConfig.from_dict(
        CONFIGS["llama-2"] | {"hidden_size": 256, "intermediate_size": 512}
    )
    how = Quantization(4, 64)
    tensors = tensors_of(config, lambda _: how)
    layers = (
        Block(config, config.layer(0), tensors, lambda _: how),
        CpuBlock(kernel_engine(threads=2), config, config.layer(0), tensors, lambda _: how),
    )
    assert follow(config, *layers, caches_of(config, 0), (1, 3, 40, 1)) < 0.03


@pytest.mark.parametrize("activations", ["int8", "float"])
@pytest.mark.parametrize("how", [Quantization(4, 64), Quantization(8, 32), None])
def test_few_tokens_at_once_are_each_as_alone(activations, how):
    config = ModelConfig.from_dict(
        CONFIGS["llama-3"] | {"hidden_size": 256, "intermediate_size": 704}
    )
    layer = CpuBlock(
        kernel_engine(threads=2, activations=activations),
        config,
        config.layer(0),
        tensors_of(config, lambda _: how, dtype=mx.bfloat16),
        lambda _: how,
    )
    for count in (2, 3, 4, 9, 16):
        together, alone = caches_of(config, 0)
        for cache in (together, alone):
            layer(hidden_of(config, 5), [(cache, 5)])
        hidden = hidden_of(config, count)
        found = layer(hidden, [(together, count)])
        expected = [layer(hidden[:, place : place + 1], [(alone, 1)]) for place in range(count)]
        assert np.array_equal(np.array(found), np.array(mx.concatenate(expected, axis=1)))


def test_a_layer_follows_its_memory(floats):
    config = ModelConfig.from_dict(CONFIGS["llama-2"])
    how = Quantization(4, 32)
    slot, other = (tensors_of(config, lambda _: how, seed=seed) for seed in (0, 1))
    own, plain = (
        CpuBlock(floats, config, config.layer(0), slot, lambda _: how),
        Block(config, config.layer(0), other, lambda _: how),
    )
    caches = caches_of(config, 0)
    assert follow(config, plain, own, caches, (3,)) > 0.1
    for name, array in slot.items():
        np.array(array, copy=False)[...] = np.array(other[name])
    assert follow(config, plain, own, caches_of(config, 0), (3, 1)) < 1e-5


def test_all_layers_in_one_call_are_one_after_the_other_token_after_token(floats):
    config = ModelConfig.from_dict(CONFIGS["mistral-window"])
    how = Quantization(4, 32)
    blocks = [
        CpuBlock(
            floats,
            config,
            config.layer(0),
            tensors_of(config, lambda _: how, seed=seed),
            lambda _: how,
        )
        for seed in range(3)
    ]
    together = make_layers(blocks)
    assert isinstance(together, CpuLayers)
    caches = [[caches_of(config, window)[0] for window in (9, 0, 9)] for _ in range(3)]

    def one_by_one(hidden, own):
        for block, cache in zip(blocks, own, strict=True):
            hidden = block(hidden, [(cache, hidden.shape[1])])
        return hidden

    # single tokens are moved on from the plan of the one before, until memory moves or is trimmed
    for length in (4, 1, 1, 30, *[1] * 70):
        hidden = hidden_of(config, length)
        expected = one_by_one(hidden, caches[0])
        states = together.run([hidden, hidden], [[Span(own, length)] for own in caches[1:]])
        assert all(mx.array_equal(state, expected) for state in states)
    # two sequences side by side, which go different ways from here
    alone = [[cache.copy() for cache in caches[0]] for _ in range(2)]
    for number, lengths in enumerate([(5, 9), (1, 1), (1, 1), (1, 1), (2, 1), (1, 1)]):
        if number == 3:
            for own in (*alone, *caches[1:]):
                assert all(cache.trim(cache.offset - 1) for cache in own)
        pieces = [hidden_of(config, length, seed=place) for place, length in enumerate(lengths)]
        expected = [one_by_one(*pair) for pair in zip(pieces, alone, strict=True)]
        spans = [Span(own, length) for own, length in zip(caches[1:], lengths, strict=True)]
        [state] = together.run([mx.concatenate(pieces, axis=1)], [spans])
        assert mx.array_equal(state, mx.concatenate(expected, axis=1))
    together.close()
    with pytest.raises(ClosedError):
        together.run([hidden], [[Span(caches[0], 1)]])


def test_a_copied_cache_goes_its_own_way(floats):
    config = ModelConfig.from_dict(CONFIGS["llama-2"])
    layer = CpuBlock(
        floats, config, config.layer(0), tensors_of(config, lambda _: None), lambda _: None
    )
    cache, again = caches_of(config, 0)
    for own in (cache, again):
        layer(hidden_of(config, 5), [(own, 5)])
    twin = cache.copy()
    layer(hidden_of(config, 1, seed=7), [(twin, 1)])
    found, expected = (layer(hidden_of(config, 1), [(own, 1)]) for own in (cache, again))
    assert distance(found, expected) == 0.0


@pytest.mark.parametrize("how", PLAIN)
def test_a_product_is_mlx_own(how, floats):
    weight = mx.random.normal((70, 128), key=mx.random.key(0))
    parts = (
        [weight] if how is None else mx.quantize(weight, group_size=how.group_size, bits=how.bits)
    )
    tensors = dict(zip(("head.weight", "head.scales", "head.biases"), parts, strict=False))
    linear = linear_from(tensors, "head", how)
    for shape in ((128,), (1, 128), (2, 3, 128), (1, 40, 128)):
        x = mx.random.normal(shape, key=mx.random.key(1))
        found = CpuLinear(floats, linear)(x)
        assert found.shape == (*shape[:-1], 70)
        assert distance(found, linear(x)) < 1e-5


def test_two_models_in_two_threads():
    config = ModelConfig.from_dict(CONFIGS["llama-3"])
    shared = kernel_engine(threads=2)
    layers = [
        CpuBlock(
            shared,
            config,
            config.layer(0),
            tensors_of(config, lambda _: Quantization(4, 32), seed=seed),
            lambda _: Quantization(4, 32),
        )
        for seed in (0, 1)
    ]
    inputs = [np.array(hidden_of(config, length)) for length in (1, 30)]

    def results(layer):
        cache = caches_of(config, 0)[0]
        return [
            np.array(layer(mx.array(hidden), [(cache, hidden.shape[1])])) for hidden in inputs * 5
        ]

    expected = [results(layer) for layer in layers]
    found = [[], []]
    threads = [
        threading.Thread(target=lambda n=n: found[n].extend(results(layers[n]))) for n in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, theirs in zip(found, expected, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(mine, theirs, strict=True))


def test_the_plan_of_a_form_without_kernels_has_room_for_scores(tmp_path):
    settings = LoadSettings(threads=2, memory="2GB", context=64)
    plans = []
    for mode, bits in (("affine", 4), ("mxfp4", 4)):
        folder = quantized(tmp_path / mode, Quantization(bits, 32, mode))
        checkpoint = read_checkpoint(folder)
        arithmetic = arithmetic_of(checkpoint, settings)
        assert arithmetic.fused_attention == (mode == "affine")
        assert arithmetic.lazy == (mode != "affine")
        plans.append(plan_for(checkpoint, settings))
    assert plans[1].working_bytes - plans[0].working_bytes == 64 * 64 * 2 * 4 * 4


def test_forms_without_kernels_run_in_mlx_with_one_warning():
    config = ModelConfig.from_dict(CONFIGS["llama-2"])
    how = Quantization(4, 32, "mxfp4")
    tensors = tensors_of(config, lambda _: how)
    warn_slow.cache_clear()
    kernels = engine_for(LoadSettings(threads=2))
    with pytest.warns(RuntimeWarning, match="mxfp4"):
        layer = make_layer(kernels, config, config.layer(0), tensors, lambda _: how)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(
            make_layer(kernels, config, config.layer(0), tensors, lambda _: how), Block
        )
        head = linear_from(tensors, "self_attn.o_proj", how)
        assert make_linear(kernels, head) is head
    assert isinstance(layer, Block)
    assert layer(hidden_of(config, 3), [(caches_of(config, 0)[0], 3)]).shape == (1, 3, 64)


@pytest.mark.parametrize("activations", ["auto", "int8", "float"])
def test_the_settings_choose_the_arithmetic(activations):
    kernels = engine_for(LoadSettings(threads=3, activations=activations))
    assert kernels.threads == 3
    assert kernels.activations == (
        "float" if activations == "float" or not kernels.isa.dot else "int8"
    )


def test_int8_keeps_the_bundled_model_s_predictions():
    text = (
        "Once upon a time, there was a little girl named Lily. She had a red ball and a small dog. "
        "One day, the dog ran away with the ball. Lily was sad and looked for it under the bed, in "
        "the garden and behind the big tree. Then she saw the dog by the river. The dog was wet "
        'but happy. Lily hugged him and said, "Let us go home and have some cake."'
    )
    folder = locate(DEFAULT_MODEL)
    checkpoint, reader = read_checkpoint(folder), DiskReader()
    ids = Tokenizer.from_folder(folder, vocab_size=checkpoint.config.vocab_size).encode(text)
    found = []
    for activations in ("float", "int8"):
        settings = LoadSettings(activations=activations, threads=2)
        plan = plan_for(checkpoint, settings)
        model = load_model(checkpoint, plan, reader, settings)
        caches = make_caches(checkpoint, capacity=len(ids), window=None, reserve=len(ids))
        half = len(ids) // 2
        states = [model(mx.array([ids[:half]]), caches)]
        states += [model(mx.array([[token]]), caches) for token in ids[half:-1]]
        logits = np.array(mx.concatenate(states, axis=1)[0], np.float64)
        found.append(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
    reader.close()
    exact, rounded = found
    kl = (np.exp(exact) * (exact - rounded)).sum(-1).mean()
    losses = [-logs[np.arange(len(ids) - 1), ids[1:]].mean() for logs in found]
    assert 0 < kl < 2e-3
    assert abs(np.expm1(losses[1] - losses[0])) < 0.005


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_sequences_side_by_side_get_what_they_get_alone(threads):
    """Whether each of them is looked after by one thread, or one after the other by all."""
    config = ModelConfig.from_dict(CONFIGS["mistral-window"])
    how = Quantization(4, 32)
    shared = kernel_engine(threads=threads, activations="float")
    layer = CpuBlock(
        shared, config, config.layer(0), tensors_of(config, lambda _: how), lambda _: how
    )
    for lengths in ([1] * 8, [1] * 16, [1, 1, 300, 1], [40, 50, 60, 45, 5, 7], [700, 3, 600]):
        before = [(29 * place) % 211 for place in range(len(lengths))]
        alone, together = (
            [caches_of(config, 0 if place % 3 else 9)[0] for place in range(len(lengths))]
            for _ in range(2)
        )
        for place, count in enumerate(before):
            for cache in (alone[place], together[place]) if count else ():
                layer(hidden_of(config, count), [(cache, count)])
        max_exact_rows = max(lengths) <= layer.max_exact_rows
        pieces = [hidden_of(config, length, seed=place) for place, length in enumerate(lengths)]
        expected = [
            layer(piece, [(cache, piece.shape[1])])
            for piece, cache in zip(pieces, alone, strict=True)
        ]
        found = layer(mx.concatenate(pieces, axis=1), list(zip(together, lengths, strict=True)))
        assert [cache.offset for cache in together] == [cache.offset for cache in alone]
        begin = 0
        for one in expected:
            mine = found[:, begin : begin + one.shape[1]]
            same = bool(mx.array_equal(mine, one)) if max_exact_rows else distance(mine, one) < 1e-5
            assert same, lengths
            begin += one.shape[1]
