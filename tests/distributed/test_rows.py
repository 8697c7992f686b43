"""Machines that have rows of every matrix give what one gives, bit for bit."""

import numpy as np
import pytest
from support.clusters import (
    answers,
    answers_of_one,
    members,
    require_equal,
    write_hosts,
)
from support.member_processes import MemberProcess
from support.paged import CONTEXT, PROMPT
from support.ports import free_port
from support.tiny import LLAMA, write_model
from support.tiny_families import CONFIGS as MORE_CONFIGS

import edgellm
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.distributed import row_choice
from edgellm.distributed.choice import forecast_cluster
from edgellm.distributed.links.secret import new_secret
from edgellm.distributed.parts.rows import checkpoint_rows, share_rows
from edgellm.distributed.remote.row_layers import GatheredLayers
from edgellm.settings import LoadSettings

GROUPS = {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4}
GROUPS |= {"max_position_embeddings": 1024}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, tiny_folder):
    """A tiny model of four key/value heads in 4 bits."""
    made = tmp_path_factory.mktemp("made") / "4bit"
    convert(tiny_folder("llama-3.2", config=GROUPS, seed=1), made, bits=4)
    return made


@pytest.mark.parametrize("kv_bits", [16, 8, 4])
@pytest.mark.parametrize("activations", ["int8", "float"])
def test_rows_equal_one(quantized, tmp_path, activations, kv_bits):
    load = {"context": CONTEXT, "threads": 1, "activations": activations, "kv_bits": kv_bits}
    one = answers_of_one(quantized, **load)
    for memories in (["500MB"], ["200MB", "300MB"], ["500MB"] * 3):
        with (
            members(quantized, tmp_path / str(len(memories)), memories) as hosts,
            edgellm.load(quantized, memory="500MB", machines=hosts, split="rows", **load) as llm,
        ):
            assert isinstance(llm.model.layers, GatheredLayers)
            require_equal(one, answers(llm))


@pytest.mark.parametrize(("pays", "gathers"), [(True, 3), (False, 4)])
def test_each_machine_has_all_or_some_of_what_heads_attend_to(
    quantized, tmp_path, monkeypatch, pays, gathers
):
    monkeypatch.setattr(row_choice, "_pays_all_attended", lambda *_: pays)
    load = {"context": CONTEXT, "threads": 1, "memory": "500MB"}
    with edgellm.load(quantized, **load) as llm:
        one = answers(llm)
    with (
        members(quantized, tmp_path, ["500MB"] * 2) as hosts,
        edgellm.load(quantized, machines=hosts, split="rows", **load) as llm,
    ):
        require_equal(one, answers(llm))
        mesh = llm.model.layers.meet()
        passes, before = mesh.passes, mesh.gathers
        llm.generate(PROMPT, max_tokens=5)
        layers = GROUPS["num_hidden_layers"]
        assert mesh.gathers - before == gathers * layers * (mesh.passes - passes)


@pytest.mark.parametrize("kind", ["qwen2-window", "llama-biases", "qwen3", "mistral-window"])
@pytest.mark.parametrize("bits", [4, None])
def test_kinds_of_models_equal_one(tiny_folder, tmp_path, kind, bits):
    folder = tiny_folder(kind)
    if bits:
        convert(folder, tmp_path / "made", bits=bits)
        folder = tmp_path / "made"
    load = {"context": CONTEXT, "threads": 1}
    one = answers_of_one(folder, **load)
    with (
        members(folder, tmp_path, ["500MB"]) as hosts,
        edgellm.load(folder, memory="500MB", machines=hosts, split="rows", **load) as llm,
    ):
        require_equal(one, answers(llm))


def test_long_prompts_chats_and_cancelled_answers(quantized, tmp_path):
    prompt = [3 + 7 * token % 300 for token in range(700)]  # more than a call of the kernels
    load = {"context": len(prompt) + 40, "threads": 1, "memory": "500MB"}

    def talk(llm):
        chat = llm.chat(max_tokens=8, temperature=0)
        return chat.send("Once upon a time"), chat.send("And then?")

    with edgellm.load(quantized, **load) as llm:
        one = llm.generate(prompt, max_tokens=20).text, np.array(llm.logits(prompt)), talk(llm)
    with (
        members(quantized, tmp_path, ["500MB", "300MB"]) as hosts,
        edgellm.load(quantized, machines=hosts, split="rows", **load) as llm,
    ):
        for tokens in range(4):
            stream = llm.stream(prompt, max_tokens=30, reuse_cache=True)
            for _ in range(tokens):
                next(stream)
            stream.cancel()
            assert llm.generate(prompt, max_tokens=20, reuse_cache=True).text == one[0]
        assert np.array_equal(np.array(llm.logits(prompt)), one[1])
        assert talk(llm) == one[2]
        # of the last pass, and of the one before, whose answers nobody has waited for
        assert all(peer._replies.qsize() <= 2 for peer in llm.model.layers.peers)


def test_the_first_of_many_prompts_side_by_side_moves_the_memory_that_steps_point_to(
    quantized, tmp_path
):
    """Once in this process it ended in a segmentation fault: attention's steps had no owner."""
    load = {"context": 200, "threads": 1, "memory": "500MB"}
    prompts = [[token] * 20 for token in (9, 8)]
    with edgellm.load(quantized, **load) as llm:
        one = [completion.text for completion in llm.generate_batch(prompts, max_tokens=4)]
    with (
        members(quantized, tmp_path, ["500MB"]) as hosts,
        edgellm.load(quantized, machines=hosts, split="rows", **load) as llm,
    ):
        many = [completion.text for completion in llm.generate_batch(prompts, max_tokens=4)]
    assert many == one


@pytest.mark.filterwarnings("ignore:machine .* is back:RuntimeWarning")
def test_a_machine_that_comes_back_has_its_rows_again(quantized, tmp_path):
    load = {"context": CONTEXT, "threads": 1, "memory": "500MB", "machine_wait": 0}
    secret = new_secret()
    with MemberProcess(quantized, secret, port=free_port()) as member:
        hosts = write_hosts(tmp_path, [member.port], secret)
        with edgellm.load(quantized, machines=hosts, split="rows", **load) as llm:
            before = llm.generate(PROMPT, max_tokens=20, reuse_cache=True).text
            stream = llm.stream(PROMPT, max_tokens=60)
            next(stream)
            member.end()
            with pytest.raises(edgellm.MachineError, match="is gone"):
                list(stream)
            with MemberProcess(quantized, secret, port=member.port):
                again = llm.generate(PROMPT, max_tokens=20, reuse_cache=True)
                assert again.text == before


def test_shares_follow_the_memories_and_have_all_rows(quantized):
    checkpoint = read_checkpoint(quantized)
    shares = share_rows(checkpoint.config, [200, 500, 300])
    assert [share.kv_heads for share in shares] == [(0, 1), (1, 3), (3, 4)]
    for bounds in zip(*(share.as_dict().values() for share in shares), strict=True):
        assert [first for first, _ in bounds[1:]] == [stop for _, stop in bounds[:-1]]
    # each machine reads its own rows; norms are on all of them
    parts = [checkpoint_rows(checkpoint, share).layers[0] for share in shares]
    norms = sum(tensor.nbytes for name, tensor in parts[0].tensors.items() if "layernorm" in name)
    whole = checkpoint.layers[0].nbytes
    assert sum(part.nbytes for part in parts) == whole + 2 * norms


def test_the_forecast_of_rows_computes_at_once(quantized, tmp_path):
    with members(quantized, tmp_path, ["500MB"]) as hosts:
        settings = LoadSettings(
            memory="500MB", context=CONTEXT, threads=1, machines=hosts, split="rows"
        )
        plan = forecast_cluster(read_checkpoint(quantized), settings).kinds["rows"]
    slowest = max(part.arithmetic_seconds for part in plan.parts)
    assert plan.seconds_per_token == slowest + plan.link_seconds
    gathers = 3 * GROUPS["num_hidden_layers"]
    assert plan.link_seconds > gathers * plan.parts[1].trip_seconds / 2


@pytest.mark.parametrize(
    ("config", "keywords", "said"),
    [
        (MORE_CONFIGS["olmo2"], {}, "norms what rows of all machines make"),
        (LLAMA, {"backend": "mlx"}, "here MLX does"),
        (LLAMA | {"num_key_value_heads": 2}, {}, "2 key/value heads, which 3 machines cannot"),
    ],
)
def test_what_cannot_be_split_is_said(tmp_path, config, keywords, said):
    folder = write_model(tmp_path / "model", config)
    with members(folder, tmp_path, ["500MB", "500MB"]) as hosts:
        load = {"context": CONTEXT, "threads": 1, "machines": hosts, "split": "rows"} | keywords
        with pytest.raises(edgellm.ConfigError, match=said) as error:
            edgellm.load(folder, memory="500MB", **load)
    assert "--split" in error.value.hint


def test_rows_without_machines_are_refused():
    with pytest.raises(edgellm.ConfigError, match="rows are split among several machines"):
        LoadSettings(split="rows")
