"""The planner takes 8 bits for the KV cache where they pin a layer more and were measured."""

import pytest
from support.paged import paged_budget

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.checkpoint.fingerprint import fingerprint
from edgellm.converters import convert
from edgellm.errors import FormatError
from edgellm.memory_plan.kv_quality import MOST_LOSS, eight_bits_do, record_kv_loss

PROMPT = [1, *range(40, 60)]


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return convert(tiny_folder("llama-3.2"), tmp_path / "made", bits=4).path


def test_eight_bits_are_taken_where_they_pin_more_and_were_measured(folder, open_llm):
    load = {"context": 100, "memory": paged_budget(folder, 1, context=100, kv_bits=8)}
    usual = open_llm(folder, load=load).plan
    assert (usual.kv_bits, usual.kv_bits_chosen, usual.pinned) == (16, False, ())
    assert usual.pinned_in_8_bits == 1
    record_kv_loss(folder, MOST_LOSS / 2, tokens=1000)
    llm = open_llm(folder, load=load)
    assert (llm.plan.kv_bits, llm.plan.kv_bits_chosen, len(llm.plan.pinned)) == (8, True, 1)
    assert llm.plan.context == 100
    assert llm.plan.total_bytes <= load["memory"]
    as_set = open_llm(folder, load=load | {"kv_bits": 8})
    assert not as_set.plan.kv_bits_chosen
    text = llm.generate(PROMPT, max_tokens=8)
    assert text.ids == as_set.generate(PROMPT, max_tokens=8).ids
    for other in ({"kv_bits": 16}, {"memory": "500MB"}):
        assert open_llm(folder, load=load | other).plan.kv_bits != 8
    record_kv_loss(folder, 2 * MOST_LOSS, tokens=1000)
    assert open_llm(folder, load=load).plan.kv_bits == 16


def test_a_record_does_not_change_what_a_model_is(folder, tiny_folder):
    before = fingerprint(read_checkpoint(folder))
    record_kv_loss(folder, -MOST_LOSS, tokens=1000)
    assert eight_bits_do(folder)
    assert fingerprint(read_checkpoint(folder)) == before
    for damaged in ("[]", '{"kv_loss": []}', '{"kv_loss": {"8": false}}'):
        (folder / "edgellm.json").write_text(damaged)
        assert not eight_bits_do(folder)
    others = tiny_folder("llama-3.2")
    assert not eight_bits_do(others)
    with pytest.raises(FormatError):
        record_kv_loss(others, 0.0, tokens=1000)
