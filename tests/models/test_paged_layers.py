"""A model larger than its budget computes what it computes when all of it is in memory, and survives what goes wrong."""

import gc
import os
import shutil
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.readers import FailingReader

import edgellm
from edgellm.checkpoint.buffer import WeightBuffer
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters.synthetic import synthesize
from edgellm.device import machine as device
from edgellm.errors import ClosedError, MemoryBudgetError, ReadError
from edgellm.models.arithmetic import arithmetic_of
from edgellm.models.layers import ResidentLayers, Span
from edgellm.models.paged_layers import PagedLayers
from edgellm.open_llm import open_llm
from edgellm.plan.planner import plan_for
from edgellm.reading.disk_reader import DiskReader, Tuning
from edgellm.runtime.loader import make_block, make_caches
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer

CONTEXT = 96
PROMPT = [3, 1, 4, 1, 5, 92, 65, 35, 89, 79]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of synthetic models by shape and bits, made when they are first asked for."""
    root = tmp_path_factory.mktemp("models")

    def make(shape, bits=4):
        folder = root / f"{shape}-{bits}"
        if not folder.exists():
            synthesize(shape, folder, bits=bits)
        return folder

    return make


def open_model(folder, reader=None, **keywords):
    checkpoint = read_checkpoint(folder)
    tokenizer = Tokenizer.from_folder(folder, vocab_size=checkpoint.config.vocab_size)
    return open_llm(
        checkpoint, tokenizer, LoadSettings(**{"context": CONTEXT} | keywords), reader=reader
    )


def least_budget(folder, **keywords):
    with pytest.raises(MemoryBudgetError) as raised:
        plan_for(
            read_checkpoint(folder), LoadSettings(**{"context": CONTEXT, "memory": 1} | keywords)
        )
    return int(raised.value.hint.split("--memory ")[1].split("MB")[0]) * 1_000_000


def paged_budget(folder, pinned, **keywords):
    """A budget in which this many layers are pinned; those of the tiny models are far below a megabyte."""
    checkpoint = read_checkpoint(folder)
    low, high = 1, 1 << 32
    while low < high:
        middle = (low + high) // 2
        try:
            plan = plan_for(
                checkpoint, LoadSettings(**{"context": CONTEXT, "memory": middle} | keywords)
            )
            high = middle if len(plan.pinned) >= pinned else high
            low = low if len(plan.pinned) >= pinned else middle + 1
        except MemoryBudgetError:
            low = middle + 1
    return low


def logits_of(llm, prompt=PROMPT):
    return np.array(llm.logits(prompt))


def census():
    """Threads, open files, and MLX's memory in use."""
    gc.collect()
    files = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    return Counter(thread.name for thread in threading.enumerate()), files, mx.get_active_memory()


# What it computes


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
def test_logits_and_texts_are_those_of_the_resident_model(models, model, pinned):
    shape, bits = model.split()
    folder = models(shape, int(bits))
    with open_model(folder, prefill_chunk=32) as resident:
        assert resident.plan.resident
        expected, answer = logits_of(resident), resident.generate(PROMPT, max_tokens=12)
    with open_model(folder, memory=paged_budget(folder, pinned), prefill_chunk=32) as paged:
        assert len(paged.plan.pinned) == pinned
        assert paged.plan.prefill_chunk == 32
        for _ in range(3):
            assert (logits_of(paged) == expected).all()
        again = paged.generate(PROMPT, max_tokens=12)
    assert [token.id for token in again.tokens] == [token.id for token in answer.tokens]
    assert again.text == answer.text


@settings(max_examples=40)
@given(data=st.data())
def test_every_ring_computes_the_same(models, data):
    """Whatever is pinned, however many slots there are, however far launches run ahead, in whatever pieces a prompt comes."""
    shape = data.draw(st.sampled_from(["tiny-llama", "tiny-mistral"]))
    checkpoint = read_checkpoint(models(shape))
    count = len(checkpoint.layers)
    pinned = sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1)))
    slots = data.draw(st.integers(1, count - len(pinned)))
    launch_ahead = data.draw(st.integers(0, 3))
    window = data.draw(st.sampled_from([None, 1, 5, 64]))
    pieces = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    steps = data.draw(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=2), max_size=3))
    key = mx.random.key(data.draw(st.integers(0, 1000)))

    arithmetic = arithmetic_of(checkpoint, LoadSettings())

    def block(part, slot):
        return make_block(checkpoint, arithmetic, part, slot)

    reader = DiskReader(Tuning(threads=2, read_size=4096))
    slots_of_all = [WeightBuffer(part.layout.nbytes) for part in checkpoint.layers]
    for part, slot in zip(checkpoint.layers, slots_of_all, strict=True):
        reader.submit(part.extents, slot.memory).wait()
    resident = ResidentLayers(list(map(block, checkpoint.layers, slots_of_all)))
    paged = PagedLayers(checkpoint.layers, pinned, slots, reader, block, launch_ahead=launch_ahead)
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
    """The same model in two shards as MLX writes them: no alignment, and tensors in whatever order."""
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


# What it costs


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 80])
@pytest.mark.parametrize("new", [1, 2, 5])
def test_n_new_tokens_after_any_prompt_cost_n_passes(models, length, new):
    folder = models("tiny-llama")
    with open_model(
        folder, memory=paged_budget(folder, 2), prefill_chunk=32, speculate="off"
    ) as paged:
        done = paged.generate([7] * length, max_tokens=new)
        assert done.stats.completion_tokens == new
        assert done.stats.weight_passes == new
        streamed = sum(paged.checkpoint.layers[index].nbytes for index in paged.plan.streamed)
        ahead = paged.plan.ring_buffers * max(layer.nbytes for layer in paged.checkpoint.layers)
        table = paged.checkpoint.embed_tokens.nbytes
        assert new * streamed - ahead <= done.stats.bytes_read <= new * streamed + ahead + table


def test_a_resident_model_passes_over_nothing(models):
    with open_model(models("tiny-llama")) as resident:
        stats = resident.generate(PROMPT, max_tokens=3).stats
    assert (stats.weight_passes, stats.bytes_read) == (0, 0)


def test_a_turn_of_a_chat_costs_its_new_tokens_only(models):
    folder = models("tiny-llama")
    budget = paged_budget(folder, 1, context=512)
    with open_model(folder, memory=budget, context=512) as paged, paged.chat(max_tokens=3) as chat:
        chat.send("Hi")
        *_, last = chat.stream("And?")
        stats = last.stats
        assert stats.weight_passes == stats.completion_tokens
        assert stats.cached_tokens > 0


def test_no_weight_memory_is_allocated_while_it_runs(models):
    folder = models("tiny-llama", 16)

    def growth(**keywords):
        with open_model(folder, prefill_chunk=32, **keywords) as llm:
            llm.generate(PROMPT, max_tokens=4)
            mx.clear_cache()
            before = mx.get_active_memory()
            mx.reset_peak_memory()
            llm.generate(PROMPT, max_tokens=4)
            return mx.get_peak_memory() - before

    layer = read_checkpoint(folder).layers[0].nbytes
    assert growth(memory=paged_budget(folder, 1, prefill_chunk=32)) < growth() + layer // 2


def test_reading_goes_on_between_tokens_and_turns(models):
    folder = models("tiny-llama")
    reader = FailingReader()
    with open_model(folder, reader, memory=paged_budget(folder, 0)) as paged:
        asked = len(reader.submitted)
        paged.generate(PROMPT, max_tokens=1)
        layers, slots = len(paged.checkpoint.layers), paged.plan.ring_buffers
        assert len(reader.submitted) == asked + layers, (
            "the first layers of the next pass are already being read"
        )
        wanted = [layer.extents for layer in paged.checkpoint.layers]
        assert reader.submitted[-slots:] == wanted[:slots]
        paged.generate(PROMPT, max_tokens=2)
        assert len(reader.submitted) == asked + 3 * layers
    assert reader.closed


# What goes wrong


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.7, 0.99])
def test_a_read_that_fails_is_told_and_the_model_goes_on(models, share):
    folder = models("tiny-llama")
    budget = paged_budget(folder, 2)
    with open_model(folder, memory=budget) as resident:
        expected = resident.generate(PROMPT, max_tokens=4).text
    reader = FailingReader()
    with open_model(folder, reader, memory=budget) as paged:
        streamed = sum(paged.checkpoint.layers[index].nbytes for index in paged.plan.streamed)
        reader.fail_at = reader.bytes_read + int(share * streamed)
        with pytest.raises(ReadError, match=r"offset \d+ of .*model-layer-\d+\.safetensors"):
            paged.generate(PROMPT, max_tokens=4)
        assert paged.generate(PROMPT, max_tokens=4).text == expected


def test_a_read_that_fails_while_loading_leaves_nothing_behind(models):
    folder = models("tiny-llama")
    budget = paged_budget(folder, 2)
    before = census()
    for fail_at in (0, 40_000, 100_000):
        reader = FailingReader(fail_at)
        with pytest.raises(ReadError, match="asked to"):
            open_model(folder, reader, memory=budget)
        assert reader.closed
    assert census()[:2] == before[:2]


def test_a_model_that_nobody_closed_ends_with_its_last_reference(models):
    folder = models("tiny-llama")
    budget = paged_budget(folder, 2)
    before = census()
    for _ in range(3):
        paged = open_model(folder, memory=budget)
        paged.generate(PROMPT, max_tokens=1)
        next(paged.stream(PROMPT, max_tokens=3))
        del paged
    assert census()[:2] == before[:2]


@pytest.mark.parametrize("fault", ["truncate", "rewrite", "remove"])
def test_a_shard_that_changes_under_a_running_model(models, tmp_path, fault):
    folder = tmp_path / "model"
    shutil.copytree(models("tiny-llama"), folder)
    with open_model(folder, memory=paged_budget(folder, 1)) as paged:
        expected = paged.generate(PROMPT, max_tokens=3).text
        shard = paged.checkpoint.layers[paged.plan.streamed[-1]].extents[0].file
        content = shard.read_bytes()
        if fault == "truncate":
            os.truncate(shard, 30_000)
        elif fault == "rewrite":
            shard.write_bytes(bytes(len(content)))
        else:
            shard.unlink()
        os.utime(folder if fault == "remove" else shard, ns=(1, 1))
        if fault == "remove":  # the open file is still there
            assert paged.generate(PROMPT, max_tokens=3).text == expected
            return
        for _ in range(2):
            with pytest.raises(ReadError, match=rf"{shard} was changed .* offset \d+"):
                paged.generate(PROMPT, max_tokens=3)
    with pytest.raises(ClosedError):
        paged.generate(PROMPT)


def test_a_stream_dropped_half_way_leaves_a_usable_model(models):
    folder = models("tiny-llama")
    with open_model(folder, memory=paged_budget(folder, 2)) as paged:
        expected = paged.generate(PROMPT, max_tokens=6).text
        for taken in (1, 2, 3):
            stream = paged.stream(PROMPT, max_tokens=6)
            for _ in range(taken):
                next(stream)
            del stream
            assert paged.generate(PROMPT, max_tokens=6).text == expected
        stream = paged.stream(PROMPT, max_tokens=50)
        next(stream)
        paged.cancel()
        assert list(stream)[-1].finish_reason == "cancelled"
        assert paged.generate(PROMPT, max_tokens=6).text == expected


def test_closing_ends_everything(models):
    folder = models("tiny-llama")
    with open_model(folder, memory=paged_budget(folder, 2)) as warm:
        warm.generate(PROMPT, max_tokens=2)
    before = census()
    for _ in range(3):
        paged = open_model(folder, memory=paged_budget(folder, 2))
        stream = paged.stream(PROMPT, max_tokens=6)
        next(stream)
        paged.close()
        paged.close()
        with pytest.raises(ClosedError):
            list(stream)
        del paged, stream
    mx.clear_cache()
    threads, files, memory = census()
    assert (threads, files) == before[:2]
    assert memory <= before[2] + 100_000


def test_two_models_at_once(models):
    first, second = models("tiny-llama"), models("tiny-mistral")
    with open_model(first) as one, open_model(second) as two:
        expected = [
            one.generate(PROMPT, max_tokens=8).text,
            two.generate(PROMPT, max_tokens=8).text,
        ]
    with (
        open_model(first, memory=paged_budget(first, 1)) as one,
        open_model(second, memory=paged_budget(second, 3)) as two,
    ):
        streams = zip(
            one.stream(PROMPT, max_tokens=8), two.stream(PROMPT, max_tokens=8), strict=True
        )
        texts = zip(*((here.text, there.text) for here, there in streams), strict=True)
        assert ["".join(text) for text in texts] == expected
        found = {}
        threads = [
            threading.Thread(
                target=lambda llm=llm, n=n: found.update(
                    {n: llm.generate(PROMPT, max_tokens=8).text}
                )
            )
            for n, llm in enumerate((one, two))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[0], found[1]] == expected


def test_a_thousand_short_answers_leave_nothing_behind(models):
    folder = models("tiny-llama")
    with open_model(folder, memory=paged_budget(folder, 3)) as paged:

        def answers(count):
            for number in range(count):
                if number % 10 == 3:
                    next(paged.stream([number % 250 + 1, 2], max_tokens=3))
                else:
                    paged.generate([number % 250 + 1, 2], max_tokens=1)

        answers(100)
        before, resident = census(), device.process_memory()
        answers(1000)
        threads, files, memory = census()
        assert (threads, files) == before[:2]
        assert memory <= before[2] + 10_000
        assert device.process_memory() < resident + (8 << 20)


def test_a_budget_that_is_too_small_says_what_would_do(models):
    folder = models("tiny-llama", 16)
    budget = least_budget(folder)
    with open_model(folder, memory=budget) as paged:
        assert paged.plan.total_bytes <= budget
        paged.generate(PROMPT, max_tokens=2)


def test_the_public_door_pages(models):
    folder = models("tiny-llama")
    budget = paged_budget(folder, 2)
    with edgellm.load(folder, memory=budget, context=CONTEXT) as paged:
        assert len(paged.plan.pinned) == 2
        plan = replace(paged.plan)
        assert plan.total_bytes <= budget
        assert paged.generate("Hello", max_tokens=2).stats.weight_passes == 2
