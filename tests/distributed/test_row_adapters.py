"""An adapter beside rows of every matrix gives what it gives on one machine, bit for bit."""

import json

import mlx.core as mx
import numpy as np
import pytest
from support.adapters import factors, write_peft
from support.clusters import (
    answers,
    answers_of_one,
    members,
    parts_in,
    require_equal,
    rows_budget,
)
from support.paged import CONTEXT, PROMPT

import edgellm
from edgellm.adapters.unmerged import open_unmerged
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.distributed import row_choice
from edgellm.distributed.choice import forecast_cluster
from edgellm.distributed.parts.changes import changes_bytes, changes_of_rows
from edgellm.distributed.parts.rows import share_rows
from edgellm.distributed.remote.row_layers import GatheredLayers
from edgellm.prompt_cache.disk_cache import MIN_TOKENS
from edgellm.settings import LoadSettings

LAYERS = 4
SHAPE = {"num_hidden_layers": LAYERS, "num_attention_heads": 8, "num_key_value_heads": 4}
LOAD = {"context": CONTEXT, "threads": 1}
RANK = 5
MODULES = ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj"]
MODULES += ["mlp.down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory, tiny_folder):
    """Models of four key/value heads, one with biases, and adapters of both in 4 bits."""
    folder = tmp_path_factory.mktemp("base")
    for kind, seed in (("llama-3.2", 1), ("llama-biases", 2)):
        plain = tiny_folder(kind, config=SHAPE, seed=seed)
        convert(plain, folder / kind, bits=4)
        for form in ("lora", "rslora", "dora"):
            write_adapter(folder / f"{form} of {kind}", folder / kind, form)
    return folder


def write_adapter(folder, model, form):
    """A folder of PEFT's that changes most matrices of a model, with random numbers."""
    shapes = read_checkpoint(model).config.tensor_shapes()
    tensors = {}
    for layer in range(LAYERS):
        for seed, module in enumerate(MODULES):
            path = f"model.layers.{layer}.{module}"
            shape = shapes[f"{module}.weight"]
            down, up = factors(shape, seed + 10 * layer, RANK)
            tensors |= {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}
            if form == "dora":
                lengths = np.linspace(0.8, 1.3, shape[0]).astype(np.float32)
                tensors[f"{path}.lora_magnitude_vector"] = lengths
    said = {"r": RANK, "lora_alpha": 8, "target_modules": [path.split(".")[-1] for path in MODULES]}
    return write_peft(folder, tensors, **said, use_dora=form == "dora", use_rslora=form == "rslora")


CASES = {
    "rslora": (["200MB", "300MB"], {"activations": "float", "kv_bits": 8}),
    "dora": (["500MB"] * 3, {"activations": "int8", "kv_bits": 4}),
}


@pytest.mark.parametrize("form", CASES)
def test_rows_with_an_adapter_equal_one(base, tmp_path, form, monkeypatch):
    # with all of o_proj on each machine, and with rows of it
    monkeypatch.setattr(row_choice, "_pays_all_attended", lambda *_: form == "rslora")
    memories, own = CASES[form]
    load = LOAD | own
    kind = "llama-biases" if form == "dora" else "llama-3.2"
    adapter = base / f"{form} of {kind}"
    one = answers_of_one(base / kind, adapter=adapter, **load)
    with (
        members(base / kind, tmp_path, memories) as hosts,
        edgellm.load(
            base / kind, memory="500MB", machines=hosts, split="rows", adapter=adapter, **load
        ) as llm,
    ):
        assert isinstance(llm.model.layers, GatheredLayers)
        require_equal(one, answers(llm))
    with edgellm.load(base / kind, memory="500MB", **load) as llm:
        assert not np.array_equal(np.array(llm.logits(PROMPT * 2)), one[0])


def test_rows_that_page_with_an_adapter(base, tmp_path):
    load = LOAD | {"kv_bits": 16, "adapter": base / "dora of llama-biases"}
    model = base / "llama-biases"
    checkpoint = read_checkpoint(model)
    changes = open_unmerged(load["adapter"], checkpoint).layer_changes(mx.float32)
    shares = share_rows(checkpoint.config, [1, 1])
    own, other = (rows_budget(model, place, [1, 1], 0, kv_bits=16) for place in range(2))
    # room for the adapter beside what pins no layer: all of it here, its rows there
    own += changes_bytes(changes)
    other += changes_bytes(changes_of_rows(changes, checkpoint.config, shares[1]))
    with (
        members(model, tmp_path, [other]) as hosts,
        edgellm.load(model, memory=own, machines=hosts, split="rows", **load) as llm,
    ):
        assert llm.plan.streamed
        assert llm.plan.adapter_bytes > changes_bytes(changes)
        paged = np.array(llm.logits(PROMPT)), llm.generate(PROMPT, max_tokens=8).text
    with edgellm.load(model, memory="500MB", **load) as llm:
        assert np.array_equal(np.array(llm.logits(PROMPT)), paged[0])
        assert llm.generate(PROMPT, max_tokens=8).text == paged[1]
    with members(model, tmp_path / "less", [other - 4096]) as hosts:
        with pytest.raises(edgellm.MemoryBudgetError, match="for the adapter") as error:
            edgellm.load(model, memory=own, machines=hosts, split="rows", **load)
        assert error.value.hint


def test_who_lacks_the_model_or_comes_back_has_the_adapter(base, tmp_path):
    model, adapter = base / "llama-3.2", base / "lora of llama-3.2"
    load = LOAD | {"adapter": adapter, "memory": "500MB", "split": "rows"}
    with edgellm.load(model, adapter=adapter, memory="500MB", **LOAD) as llm:
        one = llm.generate(PROMPT, max_tokens=12).text
    with (
        members(None, tmp_path / "parts", ["500MB"], held=parts_in(tmp_path / "kept")) as hosts,
        edgellm.load(model, machines=hosts, **load) as llm,
    ):
        assert llm.generate(PROMPT, max_tokens=12).text == one
        # as a machine that comes back: nothing that it had is there any more
        (peer,), (opening,) = llm.model.layers.peers, llm.model.layers._openings
        peer.join_again(opening)
        assert llm.generate(PROMPT, max_tokens=12).text == one


def test_what_is_kept_on_disk_is_of_one_adapter(base, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = base / "llama-3.2"
    load = LOAD | {"memory": "500MB", "split": "rows", "prompt_cache": True}
    prompt = [3 + 7 * token % 300 for token in range(MIN_TOKENS + 1)]
    texts = {}
    for form in ("lora", "dora", "lora"):
        adapter = base / f"{form} of llama-3.2"
        with (
            members(model, tmp_path / "hosts", ["500MB"]) as hosts,
            edgellm.load(model, machines=hosts, adapter=adapter, **load) as llm,
        ):
            done = llm.generate(prompt, max_tokens=8, reuse_cache=True)
            restored = done.stats.restored_tokens
            assert bool(restored) == (form in texts)
            assert texts.setdefault(form, done.text) == done.text


def test_the_forecast_counts_the_adapter_and_has_both_kinds(base, tmp_path):
    model, adapter = base / "llama-3.2", base / "lora of llama-3.2"
    with members(model, tmp_path, ["500MB"]) as hosts:
        settings = LoadSettings(memory="500MB", machines=hosts, **LOAD)
        plain = forecast_cluster(read_checkpoint(model), settings)
        settings = LoadSettings(memory="500MB", machines=hosts, adapter=adapter, **LOAD)
        forecast = forecast_cluster(read_checkpoint(model), settings)
    assert not forecast.refused
    for kind in ("windows", "rows"):
        for part, without in zip(forecast.kinds[kind].parts, plain.kinds[kind].parts, strict=True):
            assert part.plan.adapter_bytes > 0
            assert part.plan.total_bytes == without.plan.total_bytes + part.plan.adapter_bytes
    assert json.dumps(forecast.as_dict())
