"""Beam search finds what transformers finds, with one pass over the weights a token."""

import json
import math

import mlx.core as mx
import numpy as np
import pytest
from support import tiny
from support.counting import open_counted, paged_settings
from support.paths import GOLDEN

from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.errors import ConfigError, MemoryBudgetError
from edgellm.memory_plan.plan_checkpoint import least_memory
from edgellm.settings import LoadSettings

GOLDEN = json.loads((GOLDEN / "beams.json").read_text(encoding="utf-8"))
EXACT = {"activations": "float", "kv_bits": 32}
LONG = {"max_position_embeddings": 2048}
PROMPT = [tiny.BEGIN, *range(40, 60)]


def ids_of(answer):
    return [token.id for token in answer.tokens]


@pytest.mark.parametrize("kind", GOLDEN)
def test_texts_are_those_that_transformers_gave(kind, open_llm):
    known = GOLDEN[kind]
    llm = open_llm(kind, config={"eos_token_id": known["eos_token_id"]}, load=EXACT)
    ended = set()
    for text in known["texts"]:
        penalty = text["repetition_penalty"]
        answer = llm.generate(
            text["prompt"], max_tokens=20, beams=text["beams"], repetition_penalty=penalty
        )
        assert ids_of(answer) == text["text"]
        ended.add(answer.finish_reason)
        assert (answer.finish_reason == "stop") == (text["text"][-1] in llm.eos_token_ids)
    assert "stop" in ended


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["llama-biases", "qwen2-window"])
def test_texts_equal_transformers(kind, tiny_folder, open_llm):
    from make_golden import open_reference, reference_text

    random = np.random.RandomState(5)
    ends = random.choice(tiny.VOCABULARY, 30, replace=False).tolist()
    folder = tiny_folder(kind, config={"eos_token_id": ends})
    llm, reference = open_llm(folder, load=EXACT), open_reference(folder)
    for beams, penalty in ((2, 1.0), (4, 1.0), (4, 1.2), (7, 1.0)):
        prompt = random.randint(5, tiny.VOCABULARY, random.randint(1, 20)).tolist()
        answer = llm.generate(prompt, max_tokens=16, beams=beams, repetition_penalty=penalty)
        settings = {
            "num_beams": beams,
            "length_penalty": 1.0,
            "early_stopping": False,
            "repetition_penalty": penalty,
        }
        assert ids_of(answer) == reference_text(
            reference, prompt, 16, eos_token_id=[tiny.END, *ends], **settings
        )


def test_all_that_was_kept_comes_with_its_scores(open_llm):
    llm = open_llm("llama-3.2", seed=2, load=EXACT)
    stop = llm.generate(PROMPT, max_tokens=12, beams=4).text[3:5]
    answer = llm.generate(PROMPT, max_tokens=12, beams=4, stop=stop, logprobs=True)
    best = answer.beams[0]
    assert (best.ids, best.text, best.finish_reason) == (
        answer.ids,
        answer.text,
        answer.finish_reason,
    )
    scores = [beam.score for beam in answer.beams]
    assert scores == sorted(scores, reverse=True)
    assert len({beam.ids for beam in answer.beams}) == 4
    for beam in answer.beams:
        logits = np.array(llm.logits([*PROMPT, *beam.ids[:-1]]), np.float64)[len(PROMPT) - 1 :]
        own = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        mean = own[np.arange(len(beam.ids)), beam.ids].mean()
        assert beam.score == pytest.approx(mean, abs=1e-4)
        assert stop not in beam.text
        assert beam.finish_reason in {"stop", "length"}
    assert llm.generate(PROMPT, max_tokens=3).beams == ()


@pytest.mark.torch
def test_scores_are_those_of_transformers(tiny_folder, open_llm):
    import torch
    from make_golden import open_reference

    folder = tiny_folder("llama-2", seed=3)
    llm, reference = open_llm(folder, load=EXACT), open_reference(folder)
    with torch.no_grad():
        theirs = reference.generate(
            torch.tensor([PROMPT]),
            max_new_tokens=10,
            num_beams=4,
            num_return_sequences=4,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
    ours = llm.generate(PROMPT, max_tokens=10, beams=4).beams
    for beam, ids, score in zip(ours, theirs.sequences, theirs.sequences_scores, strict=True):
        expected = ids[len(PROMPT) :].tolist()
        assert list(beam.ids) == expected[: len(beam.ids)]
        assert beam.score == pytest.approx(float(score), abs=1e-4)


@pytest.mark.parametrize("paged", [False, True])
def test_all_beams_share_each_pass_over_the_weights(paged, tiny_folder):
    folder = tiny_folder("llama-2", seed=1, config=LONG)
    llm, layers = open_counted(folder, **(paged_settings(folder, context=1024) if paged else {}))
    with llm:
        assert llm.plan.resident != paged
        answer = llm.generate(PROMPT, max_tokens=12, beams=3)
    assert answer.finish_reason == "length"
    assert layers.passes == 12
    assert layers.lengths == [len(PROMPT)] + [1] * 3 * 11
    assert answer.stats.forwards == 1 + 3 * 11


def test_a_streamed_model_is_read_once_a_token(tiny_folder, open_llm):
    folder = tiny_folder("llama-2", seed=1, config=LONG)
    llm, resident = open_llm(folder, load=paged_settings(folder, context=1024)), open_llm(folder)
    answer = llm.generate(PROMPT, max_tokens=10, beams=3)
    assert (answer.stats.weight_passes, answer.text) == (
        10,
        resident.generate(PROMPT, max_tokens=10, beams=3).text,
    )


def test_more_beams_than_tokens_to_choose_from(open_llm):
    llm = open_llm("llama-2", config={"vocab_size": 312})
    assert len(llm.generate(PROMPT, max_tokens=1, beams=64).tokens) == 1
    assert len(llm.generate(PROMPT, max_tokens=4, beams=64).tokens) == 4


def test_a_stop_text_ends_a_beam(open_llm):
    llm = open_llm("llama-3.2", seed=2)
    whole = llm.generate(PROMPT, max_tokens=24, beams=3)
    stop = whole.text[5:8]
    answer = llm.generate(PROMPT, max_tokens=24, beams=3, stop=[stop])
    assert answer.finish_reason in {"stop", "length"}
    assert stop not in answer.text
    if answer.finish_reason == "stop":
        assert stop in llm.tokenizer.decode(ids_of(answer))
    one_token = llm.tokenizer.decode([whole.tokens[0].id])
    first = llm.generate(PROMPT, max_tokens=24, beams=1, stop=[one_token])
    assert (first.text, first.finish_reason) == ("", "stop")


def test_cancelled_in_the_middle_it_gives_the_best_so_far(tiny_folder):
    llm, layers = open_counted(tiny_folder("llama-2", seed=1))

    def cancel_in_the_fifth_pass():
        if layers.passes == 5:
            llm.cancel()

    layers.before_layer = cancel_in_the_fifth_pass
    with llm:
        answer = llm.generate(PROMPT, max_tokens=20, beams=2)
        assert answer.finish_reason == "cancelled"
        assert [token.id is None for token in answer.tokens] == [False] * 5 + [True]
        assert layers.passes == 5
        layers.before_layer = lambda: None
        assert llm.generate(PROMPT, max_tokens=20, beams=2).finish_reason == "length"


def test_beams_that_the_budget_has_no_room_for_are_refused(tiny_folder, open_llm):
    folder = tiny_folder("llama-2", seed=1, config=LONG)
    llm = open_llm(folder, load=paged_settings(folder, context=1024))
    with pytest.raises(MemoryBudgetError, match="4 beams need"):
        llm.generate(PROMPT, max_tokens=900, beams=4)
    assert len(llm.generate(PROMPT, max_tokens=5).tokens) == 5


def test_beams_that_a_model_is_loaded_for_have_room_in_any_budget_that_the_plan_takes(
    tiny_folder, open_llm
):
    folder = tiny_folder("llama-2", seed=1, config=LONG)
    context = len(PROMPT) + 200
    settings = LoadSettings(context=context, beams=4)
    least = least_memory(read_checkpoint(folder), settings)
    llm = open_llm(folder, load={"context": context, "beams": 4, "memory": least})
    assert llm.plan.cache_bytes == 5 * llm.plan.sequence_cache_bytes(context)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    assert llm.generate(PROMPT, max_tokens=200, beams=4, stop=["!"]).tokens
    # logits and copies on top are less than two caches of the five
    assert mx.get_peak_memory() - before < llm.plan.kv_budget + (1 << 19)
    with pytest.raises(MemoryBudgetError, match="5 beams need"):
        llm.generate(PROMPT, max_tokens=200, beams=5)


def test_beams_stay_within_the_memory_that_was_checked(tiny_folder, open_llm):
    folder = tiny_folder("llama-2", seed=1, config=LONG)
    llm = open_llm(folder, load=paged_settings(folder, context=1024))
    llm.generate(PROMPT, max_tokens=5)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    llm.generate(PROMPT, max_tokens=60, beams=3)
    assert mx.get_peak_memory() - before < llm.plan.kv_budget + (1 << 18)


def test_the_prompt_stays_cached(open_llm):
    llm = open_llm("mistral-window", load={"context": 200})
    llm.generate(PROMPT, max_tokens=8, beams=3)
    again = llm.generate([*PROMPT, 9], max_tokens=8, reuse_cache=True)
    assert again.stats.cached_tokens == len(PROMPT)
    assert again.text == llm.generate([*PROMPT, 9], max_tokens=8).text


def test_a_wider_beam_finds_a_likelier_text_than_greedy(open_llm):
    """True of most texts, and of these."""
    llm = open_llm("qwen3", seed=3)
    for start in range(5, 200, 40):
        greedy, wide = (
            llm.generate([start, start + 1], max_tokens=8, beams=beams, logprobs=True)
            for beams in (1, 8)
        )
        assert (
            sum(token.logprob for token in wide.tokens)
            >= sum(token.logprob for token in greedy.tokens) - 1e-4
        )
        assert all(math.isfinite(token.logprob) for token in wide.tokens)


def test_beam_search_is_not_sampled(open_llm):
    with pytest.raises(ConfigError, match="does not sample"):
        open_llm().generate(PROMPT, beams=2, temperature=0.5)
