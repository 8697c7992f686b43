"""Arguments of unknown names are refused with the name that was meant, peers' names too."""

import asyncio

import pytest

import edgellm
from edgellm.errors import ConfigError, EdgeLLMError
from edgellm.settings import LoadSettings, Sampling
from edgellm.settings.argument_names import check_names, names_of
from edgellm.settings.peer_names import OUR_NAMES, WAYS_ROUND
from edgellm.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("memroy", "did you mean memory?"),
        ("Memory", "did you mean memory?"),
        ("n_ctx", "did you mean context?"),
        ("max_model_length", "did you mean context?"),
        ("max_kv_size", "did you mean context_window?"),
        ("progres", "did you mean progress?"),
        ("max_tokens", "did you mean max_tokens, an argument of stream?"),
        ("max_new_tokens", "did you mean max_tokens, an argument of stream?"),
        ("n_gpu_layers", "stream from disk"),
        ("load_in_4bit", "edgellm convert MODEL --bits 4"),
        ("whatever", "its arguments are activations, adapter, backend"),
    ],
)
def test_load_says_what_was_meant(name, meant):
    with pytest.raises(ConfigError) as caught:
        edgellm.load("stories", **{name: "1"})
    assert repr(name) in caught.value.message
    assert meant in caught.value.hint


def test_every_public_function_says_what_was_meant(open_llm):
    llm = open_llm("llama-3.2")
    calls = [
        (llm.stream, ["x"], "max_tokns", "max_tokens"),
        (llm.stream, ["x"], "num_beams", "beams"),
        (llm.stream, ["x"], "tempp", "temperature"),
        (llm.generate, ["x"], "reuse_cash", "reuse_cache"),
        (llm.stream_batch, [["x"]], "n_predict", "max_tokens"),
        (llm.generate_batch, [["x"]], "max_num_seqs", "at_once"),
        (llm.batch, [], "at_onse", "at_once"),
        (llm.chat, [], "system_prompt", "system"),
        (llm.tokenizer.encode, ["x"], "add_special_token", "add_special_tokens"),
        (Tokenizer.from_folder, [llm.path], "vocab", "vocab_size"),
        (Sampling, [], "topk", "top_k"),
        (LoadSettings, [], "contxt", "context"),
    ]
    for call, arguments, name, meant in calls:
        with pytest.raises(ConfigError) as caught:
            call(*arguments, **{name: 1})
        assert caught.value.hint == f"did you mean {meant}?"
    with pytest.raises(TypeError):
        llm.generate()
    with pytest.raises(ConfigError, match="cancel has no argument 'now'"):
        llm.cancel(now=True)
    assert llm.tokenizer.render.__name__ == "render"
    assert names_of(Tokenizer.render) is None


def test_what_waits_is_checked_too():
    @check_names
    async def answer(*, timeout=None):
        return timeout

    assert asyncio.run(answer(timeout=3)) == 3
    assert asyncio.iscoroutinefunction(answer)
    with pytest.raises(ConfigError) as caught:
        asyncio.run(answer(timeot=3))
    assert caught.value.hint == "did you mean timeout?"


@pytest.mark.parametrize("name", [*OUR_NAMES, *WAYS_ROUND])
def test_no_peer_is_left_without_a_next_step(name):
    for call in (edgellm.load, Sampling, edgellm.LLM.chat):
        arguments = ["stories"] if call is edgellm.load else []
        if call is edgellm.LLM.chat:
            arguments = [None]
        with pytest.raises(EdgeLLMError) as caught:
            call(*arguments, **{name: 1})
        ours = OUR_NAMES.get(name)
        if ours:
            assert caught.value.hint.startswith(f"did you mean {ours}")
        else:
            assert caught.value.hint == WAYS_ROUND[name]
