"""Several machines give what one gives, bit for bit, whatever they hold."""

import numpy as np
import pytest
from support.clusters import (
    answers,
    answers_of_one,
    members,
    part_budget,
    require_equal,
)
from support.paged import CONTEXT, PROMPT

import edgellm
from edgellm.converters import convert
from edgellm.distributed.remote.stages import PIECE_TOKENS

LAYERS = 8


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, tiny_folder):
    """A tiny model of eight layers in 4 bits."""
    made = tmp_path_factory.mktemp("made") / "4bit"
    convert(tiny_folder("llama-3.2", config={"num_hidden_layers": LAYERS}, seed=1), made, bits=4)
    return made


@pytest.mark.parametrize("kv_bits", [16, 8, 4])
@pytest.mark.parametrize("activations", ["int8", "float"])
def test_machines_in_memory_equal_one(quantized, tmp_path, activations, kv_bits):
    load = {"context": CONTEXT, "threads": 1, "activations": activations, "kv_bits": kv_bits}
    one = answers_of_one(quantized, **load)
    for others in (1, 2):
        with (
            members(quantized, tmp_path / str(others), ["500MB"] * others) as hosts,
            edgellm.load(quantized, memory="500MB", machines=hosts, **load) as llm,
        ):
            assert llm.plan.resident
            require_equal(one, answers(llm))


@pytest.mark.parametrize("kv_bits", [16, 4])
def test_machines_that_page_in_turns_equal_one(quantized, tmp_path, kv_bits):
    load = {"context": CONTEXT, "threads": 1, "kv_bits": kv_bits}
    one = answers_of_one(quantized, **load)
    own = part_budget(quantized, 3, 1, outer=True, kv_bits=kv_bits)
    other = part_budget(quantized, 3, 0, kv_bits=kv_bits)
    with (
        members(quantized, tmp_path, [other, other]) as hosts,
        edgellm.load(quantized, memory=own, machines=hosts, split="windows", **load) as llm,
    ):
        assert not llm.plan.resident
        assert llm.plan.streamed
        assert llm.model.layers.takes_trees  # the drafts are trees then
        require_equal(one, answers(llm))


@pytest.mark.parametrize("others", [1, 2])
def test_long_prompts_are_on_several_machines_at_once(quantized, tmp_path, others):
    prompt = [3 + 7 * token % 300 for token in range(2 * PIECE_TOKENS - 60)]
    load = {"context": len(prompt) + 30, "threads": 1, "memory": "500MB"}
    with edgellm.load(quantized, **load) as llm:
        one = llm.generate(prompt, max_tokens=20).text, np.array(llm.logits(prompt))
    with (
        members(quantized, tmp_path, ["500MB"] * others) as hosts,
        edgellm.load(quantized, machines=hosts, **load) as llm,
    ):
        assert llm.generate(prompt, max_tokens=20).text == one[0]
        assert np.array_equal(np.array(llm.logits(prompt)), one[1])
        stream = llm.stream(prompt, max_tokens=20)
        stream.cancel()  # before, or in its prompt
        assert [token.finish_reason for token in stream] == ["cancelled"]
        assert llm.generate(prompt, max_tokens=20).text == one[0]


@pytest.mark.parametrize("kind", ["mistral-window", "qwen2-window", "llama-biases"])
@pytest.mark.parametrize(
    "arithmetic",
    [
        {"activations": "int8"},
        {"activations": "float"},
        {"backend": "mlx"},
    ],
)
def test_kinds_of_models_equal_one(tiny_folder, tmp_path, kind, arithmetic):
    folder = tmp_path / "4bit"
    convert(tiny_folder(kind), folder, bits=4)
    load = {"context": CONTEXT, "threads": 1} | arithmetic
    one = answers_of_one(folder, **load)
    with (
        members(folder, tmp_path, ["500MB"]) as hosts,
        edgellm.load(folder, memory="500MB", machines=hosts, **load) as llm,
    ):
        require_equal(one, answers(llm))


@pytest.mark.parametrize("kind", ["llama-3.2", "mistral-window"])
def test_a_chat_goes_on_from_the_caches_of_all_machines(tiny_folder, tmp_path, kind):
    folder = tiny_folder(kind)
    load = {"context": 200, "threads": 1, "memory": "500MB"}

    def talk(llm):
        chat = llm.chat(max_tokens=12, temperature=0)
        texts = [chat.send("Once upon a time"), chat.send("And then?")]
        again = llm.chat(max_tokens=12, temperature=0)  # begins as the first one did
        texts.append(again.send("Once upon a time"))
        return texts, chat.send("The end?")

    with edgellm.load(folder, **load) as llm:
        one = talk(llm)
    with (
        members(folder, tmp_path, ["500MB"]) as hosts,
        edgellm.load(folder, machines=hosts, **load) as llm,
    ):
        assert talk(llm) == one
        assert len(llm.prefix_cache) > 0


def test_a_cancelled_answer_leaves_nothing_behind(quantized, tmp_path):
    load = {"context": CONTEXT, "threads": 1, "memory": "500MB"}
    with edgellm.load(quantized, **load) as llm:
        one = llm.generate(PROMPT, max_tokens=30).text
    with (
        members(quantized, tmp_path, ["500MB"]) as hosts,
        edgellm.load(quantized, machines=hosts, **load) as llm,
    ):
        for tokens in range(1, 6):
            stream = llm.stream(PROMPT, max_tokens=30, reuse_cache=True)
            for _ in range(tokens):
                next(stream)
            stream.cancel()
            assert llm.generate(PROMPT, max_tokens=30, reuse_cache=True).text == one
