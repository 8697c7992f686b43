"""The reads and the memory that a model costs which is larger than its budget."""

import mlx.core as mx
import pytest
from support.paged import PROMPT, open_model, paged_budget
from support.readers import FailingReader
from support.tiny import CONFIGS, write_model

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.device.machine import has_gpu


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
        embedding = paged.checkpoint.embed_tokens.nbytes
        assert new * streamed - ahead <= done.stats.bytes_read <= new * streamed + ahead + embedding


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
        with open_model(folder, prefill_chunk=32, speculate="off", **keywords) as llm:
            llm.generate(PROMPT, max_tokens=4)
            mx.clear_cache()
            before = mx.get_active_memory()
            mx.reset_peak_memory()
            llm.generate(PROMPT, max_tokens=4)
            return mx.get_peak_memory() - before

    layer = read_checkpoint(folder).layers[0].nbytes
    assert growth(memory=paged_budget(folder, 1, prefill_chunk=32)) < growth() + layer // 2


def test_a_long_prompt_is_held_once_while_it_goes_through_the_layers(models):
    folder = models("tiny-llama", 16)
    budget = paged_budget(folder, 0, context=1024)
    with open_model(folder, memory=budget, context=1024, prefill_chunk=32) as paged:
        assert paged.plan.streamed
        paged.generate([7] * 1000, max_tokens=1)
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        paged.generate([8] * 1000, max_tokens=1)
        growth = mx.get_peak_memory() - before
        assert growth < paged.plan.working_bytes
        if not has_gpu():
            assert growth < 1.5 * 1000 * paged.config.hidden_size * 4


def test_what_mlx_makes_of_16_bit_weights_is_planned_for(tmp_path, open_llm):
    wide = CONFIGS["llama-2"] | {"intermediate_size": 8192}
    folder = write_model(tmp_path / "wide", wide, dtype=mx.bfloat16)
    llm = open_llm(folder, load={"backend": "mlx", "context": 8})
    llm.generate([1, 2, 3], max_tokens=2)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    llm.generate([1, 2, 3], max_tokens=2)
    assert mx.get_peak_memory() - before < llm.plan.working_bytes


def test_reading_goes_on_between_tokens_and_turns(models):
    folder = models("tiny-llama")
    reader = FailingReader()
    with open_model(folder, reader, memory=paged_budget(folder, 0)) as paged:
        asked = len(reader.submitted)
        paged.generate(PROMPT, max_tokens=1)
        layers, ring_buffers = len(paged.checkpoint.layers), paged.plan.ring_buffers
        assert len(reader.submitted) == asked + layers, (
            "the first layers of the next pass are already being read"
        )
        wanted = [layer.extents for layer in paged.checkpoint.layers]
        assert reader.submitted[-ring_buffers:] == wanted[:ring_buffers]
        paged.generate(PROMPT, max_tokens=2)
        assert len(reader.submitted) == asked + 3 * layers
    assert reader.closed
