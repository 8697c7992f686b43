"""A model larger than its budget survives what goes wrong, and ends without a trace."""

import os
import shutil
import threading
from dataclasses import replace

import mlx.core as mx
import pytest
from support.paged import CONTEXT, PROMPT, least_budget, open_model, paged_budget
from support.readers import FailingReader
from support.resources import NOTHING, held, more_since

import edgellm
from edgellm.errors import ClosedError, ReadError


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
    before = held()
    for fail_at in (0, 40_000, 100_000):
        reader = FailingReader(fail_at)
        with pytest.raises(ReadError, match="asked to"):
            open_model(folder, reader, memory=budget)
        assert reader.closed
    assert more_since(before) == NOTHING


def test_a_model_that_nobody_closed_ends_with_its_last_reference(models):
    folder = models("tiny-llama")
    budget = paged_budget(folder, 2)
    before = held()
    for _ in range(3):
        paged = open_model(folder, memory=budget)
        paged.generate(PROMPT, max_tokens=1)
        next(paged.stream(PROMPT, max_tokens=3))
        del paged
    assert more_since(before) == NOTHING


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


@pytest.mark.parametrize("fault", ["truncate", "rewrite", "replace"])
def test_an_embedding_on_disk_that_changes_under_a_running_model(models, tmp_path, fault):
    folder = tmp_path / "model"
    shutil.copytree(models("tiny-llama"), folder)
    before = held()
    with open_model(folder, memory=paged_budget(folder, 0)) as paged:
        assert not paged.plan.embedding_resident
        expected = paged.generate(PROMPT, max_tokens=3).text
        shard = next(iter(paged.checkpoint.embed_tokens.tensors.values())).file
        zeros = bytes(shard.stat().st_size)
        if fault == "replace":
            (tmp_path / "other").write_bytes(zeros)
            (tmp_path / "other").replace(shard)
            assert paged.generate(PROMPT, max_tokens=3).text == expected
            return
        shard.write_bytes(zeros if fault == "rewrite" else zeros[:5000])
        os.utime(shard, ns=(1, 1))
        for _ in range(2):
            with pytest.raises(ReadError, match=rf"{shard} was changed .* offset \d+"):
                paged.generate(PROMPT, max_tokens=3)
    assert more_since(before) == NOTHING


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
    before, memory = held(), mx.get_active_memory()
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
    assert more_since(before) == NOTHING
    assert mx.get_active_memory() <= memory + 100_000


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
