"""A model larger than its budget computes what it computes when all of it is in memory."""

import os
import shutil
from functools import cache, partial
from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paged import CONTEXT, PROMPT, logits_of, open_model, paged_budget

from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.models.arithmetic import arithmetic_of
from edgellm.models.layers import ResidentLayers, Span
from edgellm.models.paged_layers import PagedLayers
from edgellm.reading.disk_reader import DiskReader, Tuning
from edgellm.runtime.loader import make_block, make_caches
from edgellm.settings import LoadSettings


@pytest.fixture(scope="module")
def resident_answers(models):
    """A function that returns a folder, and its logits and answer when all of it is in memory."""

    @cache
    def answers(model):
        shape, bits = model.split()
        folder = models(shape, int(bits))
        with open_model(folder, prefill_chunk=32) as resident:
            assert resident.plan.resident
            return folder, logits_of(resident), resident.generate(PROMPT, max_tokens=12)

    return answers


@pytest.mark.parametrize("pinned", [0, 1, 3])
@pytest.mark.parametrize(
    "model",
    [
        "tiny-llama 4",
        "tiny-llama 8",
        "tiny-llama 16",
        "tiny-llama-tied 3",
        "tiny-mistral 4",
        "tiny-qwen2 4",
        "tiny-qwen3 6",
    ],
)
def test_logits_and_texts_are_those_of_the_resident_model(resident_answers, model, pinned):
    folder, expected, answer = resident_answers(model)
    with open_model(folder, memory=paged_budget(folder, pinned), prefill_chunk=32) as paged:
        assert len(paged.plan.pinned) == pinned
        assert paged.plan.prefill_chunk == 32
        for _ in range(3):
            assert (logits_of(paged) == expected).all()
        again = paged.generate(PROMPT, max_tokens=12)
    assert [token.id for token in again.tokens] == [token.id for token in answer.tokens]
    assert again.text == answer.text


@pytest.fixture(scope="module")
def resident_layers(models):
    """A function that returns a model's checkpoint, and its layers in memory, read once."""
    reader = DiskReader()

    @cache
    def read(shape):
        checkpoint = read_checkpoint(models(shape))
        buffers = [WeightBuffer(part.layout.nbytes) for part in checkpoint.layers]
        for group, buffer in zip(checkpoint.layers, buffers, strict=True):
            reader.submit(group.extents, buffer.memory).wait()
        block = partial(make_block, checkpoint, arithmetic_of(checkpoint, LoadSettings()))
        return checkpoint, ResidentLayers(list(map(block, range(len(buffers)), buffers))), block

    yield read
    reader.close()


@settings(max_examples=25)
@given(data=st.data())
def test_every_ring_computes_the_same(resident_layers, data):
    """Whatever is pinned, however long the ring, however far ahead launches run."""
    shape = data.draw(st.sampled_from(["tiny-llama", "tiny-mistral"]))
    checkpoint, resident, block = resident_layers(shape)
    count = len(checkpoint.layers)
    pinned = sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1)))
    ring_buffers = data.draw(st.integers(1, count - len(pinned)))
    launch_ahead = data.draw(st.integers(0, 3))
    window = data.draw(st.sampled_from([None, 1, 5, 64]))
    pieces = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    steps = data.draw(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=2), max_size=3))
    key = mx.random.key(data.draw(st.integers(0, 1000)))

    reader = DiskReader(Tuning(threads=2, read_size=4096))
    configs = [checkpoint.config.layer(index) for index in range(count)]
    paged = PagedLayers(
        checkpoint.layers,
        pinned,
        ring_buffers,
        reader,
        block,
        configs=configs,
        launch_ahead=launch_ahead,
    )
    caches = [
        make_caches(checkpoint, capacity=CONTEXT, window=window, reserve=CONTEXT) for _ in range(2)
    ]
    for lengths in [pieces, *steps]:
        states = [
            mx.random.normal((1, length, checkpoint.config.hidden_size), key=key)
            for length in lengths
        ]
        one, two = (
            layers.run(states, [[Span(own, state.shape[1])] for state in states])
            for layers, own in zip((resident, paged), caches, strict=True)
        )
        assert all(bool(mx.array_equal(here, there)) for here, there in zip(one, two, strict=True))
    assert paged.traffic.passes == pytest.approx(1 + len(steps))
    paged.close()
    reader.close()


def test_a_foreign_folder_is_paged_through_unaligned_shards(models, tmp_path):
    for bits in (4, 8, 16):
        folder = models("tiny-llama", bits)
        foreign = tmp_path / f"foreign-{bits}"
        write_as_others_do(folder, foreign)
        with open_model(folder, prefill_chunk=32) as ours:
            expected = logits_of(ours)
        budget = paged_budget(foreign, 2)
        with open_model(foreign, memory=budget, prefill_chunk=32) as paged:
            offsets = {
                extent.offset % 4096
                for layer in paged.checkpoint.layers
                for extent in layer.extents
            }
            assert offsets != {0}, "otherwise this test shows nothing"
            assert len(paged.plan.streamed) == 4
            for _ in range(2):
                assert (logits_of(paged) == expected).all()


def write_as_others_do(folder, destination):
    """The same model in two shards as MLX writes them: not aligned, tensors in whatever order."""
    destination.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, destination)
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors |= mx.load(str(file))
    names = sorted(tensors)
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = destination / f"model-{number:05}-of-00002.safetensors"
        mx.save_safetensors(str(shard), {name: tensors[name] for name in part})


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no /dev/shm")
def test_a_model_on_a_filesystem_without_direct_reads_is_paged(models):
    folder = Path("/dev/shm") / f"edgellm-test-model-{os.getpid()}"
    shutil.copytree(models("tiny-llama"), folder)
    try:
        with (
            open_model(folder) as resident,
            open_model(folder, memory=paged_budget(folder, 2)) as paged,
        ):
            assert (logits_of(paged) == logits_of(resident)).all()
    finally:
        shutil.rmtree(folder)
