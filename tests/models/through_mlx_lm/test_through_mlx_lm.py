"""Families of mlx-lm's behind our door: its logits and tokens, and our rules."""

import json
import threading
import warnings
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from support import tiny
from support.conversations import calls_in, require_same_alone_and_in_turn
from support.mlx_lm_models import CONFIGS, write_mlx_lm_model
from typer.testing import CliRunner

import edgellm
from edgellm.bench.backends.registry import RuntimeSettings, open_runtime
from edgellm.bench.speed.variants import prepare_variant
from edgellm.checkpoint.model_config import is_known_family
from edgellm.cli.app import app
from edgellm.errors import (
    BackendError,
    ConfigError,
    FormatError,
    MemoryBudgetError,
    NotFiniteError,
    UnsupportedModelError,
)
from edgellm.memory_plan.plan_checkpoint import plan_for
from edgellm.models.through_mlx_lm.checkpoint import any_checkpoint_of, read_any_checkpoint

PROMPT = [tiny.BEGIN, *range(40, 63)]
FAMILIES = ["gpt_oss", "qwen3_moe", "deepseek_v3"]
pytestmark = pytest.mark.filterwarnings("ignore:models of type .* run through mlx-lm")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    written = {}

    def folder(family, **how):
        key = (family, repr(how))
        if key not in written:
            place = tmp_path_factory.mktemp("through") / family
            written[key] = write_mlx_lm_model(place, family, seed=1, **how)
        return written[key]

    return folder


@pytest.fixture
def llm(folder_of):
    with edgellm.load(folder_of("gpt_oss"), memory="100MB") as model:
        yield model


def their_tokens(model, prompt, count):
    from mlx_lm.generate import generate_step

    steps = generate_step(mx.array(prompt), model, max_tokens=count)
    return [int(token) for token, _ in steps]


@pytest.mark.parametrize(
    ("family", "how"),
    [
        *((family, {}) for family in FAMILIES),
        ("qwen3_moe", {"hugging_face": True}),
        ("qwen3_moe", {"bits": 4}),
    ],
)
def test_tokens_and_logits_are_those_of_mlx_lm_itself(family, how, folder_of):
    from mlx_lm.utils import load_model

    folder = folder_of(family, **how)
    theirs = load_model(folder)[0]
    with edgellm.load(folder, memory="100MB", prefill_chunk=16) as ours:
        expected = np.array(theirs(mx.array([PROMPT]))[0].astype(mx.float32))
        assert np.abs(np.array(ours.logits(PROMPT)) - expected).max() < 2e-5 * expected.std()
        tokens = [token.id for token in ours.stream(PROMPT, max_tokens=20)]
    assert len(set(tokens)) > 3
    assert tokens == their_tokens(theirs, PROMPT, 20)[: len(tokens)]


def test_two_turns_of_a_chat_are_those_of_mlx_lm_and_the_second_costs_its_own_tokens(
    llm, folder_of
):
    from mlx_lm.utils import load_model

    theirs = load_model(folder_of("gpt_oss"))[0]
    chat = llm.chat(max_tokens=6, temperature=0)
    first = list(chat.stream("the dog"))
    second = list(chat.stream("and the sea"))
    encode = llm.tokenizer.encode
    ids = encode("<|begin|><|user|>the dog<|end|><|assistant|>", add_special_tokens=False)
    reply = their_tokens(theirs, ids, 6)
    assert [token.id for token in first] == reply
    ids += reply
    ids += encode("<|end|><|user|>and the sea<|end|><|assistant|>", add_special_tokens=False)
    expected = their_tokens(theirs, ids, 6)
    assert [token.id for token in second] == expected[: len(second)]
    assert second[-1].stats.cached_tokens == first[-1].stats.prompt_tokens + 5


def test_a_state_that_cannot_go_back_starts_anew(folder_of):
    with edgellm.load(folder_of("mamba2"), memory="100MB") as llm:
        whole = llm.generate(PROMPT, max_tokens=8)
        list(llm.stream(PROMPT[:20], max_tokens=2, reuse_cache=True))
        again = list(llm.stream(PROMPT, max_tokens=8, reuse_cache=True))
        assert again[-1].stats.cached_tokens == 0
        assert [token.id for token in again] == [token.id for token in whole.tokens]


def test_batches_and_beams_are_those_of_sequences_alone(llm):
    prompts = [PROMPT, PROMPT[:7], PROMPT[5:]]
    alone = [llm.generate(prompt, max_tokens=5).text for prompt in prompts]
    together = llm.generate_batch(prompts, max_tokens=5)
    assert [completion.text for completion in together] == alone
    greedy = llm.generate(PROMPT, max_tokens=3, logprobs=True)
    best = llm.generate(PROMPT, max_tokens=3, beams=4, logprobs=True)
    assert sum(t.logprob for t in best.tokens) >= sum(t.logprob for t in greedy.tokens)


def test_another_thread_cancels_and_a_third_goes_on(llm):
    expected = llm.generate(PROMPT, max_tokens=5).text
    stream = llm.stream(PROMPT, max_tokens=100)
    list(islice(stream, 3))
    cancelling = threading.Thread(target=llm.cancel)
    cancelling.start()
    cancelling.join()
    assert list(stream)[-1].finish_reason == "cancelled"
    texts = []
    other = threading.Thread(target=lambda: texts.append(llm.generate(PROMPT, max_tokens=5).text))
    other.start()
    other.join()
    assert texts == [expected]


def test_it_is_said_in_one_line_by_whom_and_without_what(folder_of):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        edgellm.load(folder_of("gpt_oss"), memory="100MB").close()
    (line,) = [str(warning.message) for warning in said]
    assert line.startswith("models of type gpt_oss run through mlx-lm ")
    for missing in ("paging", "CPU kernels", "speculative decoding"):
        assert missing in line


def test_a_budget_below_the_model_is_an_error_that_says_what_it_needs(folder_of):
    folder = folder_of("gpt_oss")
    with pytest.raises(MemoryBudgetError, match="all of which mlx-lm holds in memory") as caught:
        edgellm.load(folder, memory="300KB")
    needed = caught.value.hint.split()[2]
    with edgellm.load(folder, memory=needed) as llm:
        assert llm.plan.resident
        assert llm.generate(PROMPT, max_tokens=2).stats.resident_bytes >= 666432


@pytest.mark.parametrize(
    "setting",
    [
        {"kv_bits": 8},
        {"context_window": 16},
        {"prompt_cache": True},
        {"speculate": "ngram"},
        {"draft": "stories"},
        {"activations": "int8"},
        {"threads": 2},
    ],
)
def test_a_setting_that_it_cannot_follow_is_refused_by_name(setting, folder_of):
    (name,) = setting
    with pytest.raises(ConfigError, match=f"^{name}.* gpt_oss, which runs through mlx-lm"):
        edgellm.load(folder_of("gpt_oss"), **setting)


def changed(folder, place, **config):
    """A copy of a folder with another config."""
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    raw = json.loads((place / "config.json").read_text(encoding="utf-8")) | config
    (place / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    return place


BOMB = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nModel = ModelArgs = None\n"


def test_code_in_the_folder_is_refused_by_name_and_never_run(folder_of, tmp_path):
    known = folder_of("gpt_oss")
    auto_map = {"AutoModelForCausalLM": "bomb.Model", "AutoConfig": "bomb.ModelArgs"}
    cases = [
        (changed(known, tmp_path / "file", model_file="bomb.py"), "model_file 'bomb.py'"),
        (
            changed(known, tmp_path / "map", model_type="new-family", auto_map=auto_map),
            r"auto_map",
        ),
        (
            changed(known, tmp_path / "none", model_type="new-family"),
            r"'new-family' is not supported, and mlx-lm [\d.]+ does not have it either",
        ),
        (changed(known, tmp_path / "module", model_type="cache"), "'cache' is not supported"),
        # mlx-lm's module of it needs a package that is not installed
        (changed(known, tmp_path / "olmo", model_type="olmo"), "'olmo' is not supported"),
        (changed(known, tmp_path / "path", model_type="../bomb"), "'../bomb' is not supported"),
    ]
    for folder, says in cases:
        (folder / "bomb.py").write_text(BOMB, encoding="utf-8")
        with pytest.raises(UnsupportedModelError, match=says):
            edgellm.load(folder)
        assert not (folder / "ran").exists()
    # DeepSeek's own folder names code too; mlx-lm has the family, and nobody looks at it
    folder = changed(known, tmp_path / "open", auto_map=auto_map)
    (folder / "bomb.py").write_text(BOMB, encoding="utf-8")
    with edgellm.load(folder, memory="100MB") as llm:
        assert llm.generate(PROMPT, max_tokens=2).tokens
    assert not (folder / "ran").exists()


def test_headers_and_numbers_are_checked_before_mlx_lm_sees_them(folder_of, tmp_path):
    known = folder_of("gpt_oss")
    damaged = changed(known, tmp_path / "cut")
    weights = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(weights[:-5])
    with pytest.raises(FormatError, match="is cut short"):
        edgellm.load(damaged)
    many = changed(known, tmp_path / "many", num_hidden_layers=4097)
    with pytest.raises(FormatError, match="'num_hidden_layers' is 4097; the maximum is 4096"):
        edgellm.load(many)
    quantized = folder_of("qwen3_moe", bits=4)
    narrow = changed(quantized, tmp_path / "narrow", moe_intermediate_size=1)
    with pytest.raises(UnsupportedModelError, match="has rows of 1, its scales"):
        edgellm.load(narrow)
    empty = changed(quantized, tmp_path / "empty", quantization={"group_size": -64, "bits": 4})
    with pytest.raises(FormatError, match="'group_size' is -64; it must be above 0"):
        edgellm.load(empty)
    elsewhere = changed(known, tmp_path / "extra")
    # mlx-lm takes every model*.safetensors, whatever an index says
    (elsewhere / "model-extra.safetensors").write_bytes(b"\0" * 4)
    with pytest.raises(FormatError, match=r"model-extra\.safetensors is cut short"):
        edgellm.load(elsewhere)
    wrong = changed(known, tmp_path / "wrong", head_dim=8)
    with pytest.raises(UnsupportedModelError, match=r"mlx-lm [\d.]+ does not open .*wrong: Value"):
        edgellm.load(wrong)


def test_logits_that_are_not_finite_are_told_with_the_layer(folder_of, tmp_path):
    folder = changed(folder_of("qwen3_moe"), tmp_path / "nan")
    tensors = mx.load(str(folder / "model.safetensors"))
    tensors["model.layers.1.self_attn.k_proj.weight"] *= float("nan")
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    with (
        edgellm.load(folder, memory="100MB") as llm,
        pytest.raises(NotFiniteError, match="keys and values of layer 1 are the first"),
    ):
        llm.generate(PROMPT, max_tokens=2)


@pytest.mark.parametrize("command", ["plan", "info", "verify", "generate"])
def test_commands_take_it_like_any_folder(command, folder_of):
    folder = str(folder_of("qwen3_moe", bits=4))
    options = {"generate": ["--prompt", "the dog", "--max-tokens", "3", "--memory", "100MB"]}
    done = CliRunner().invoke(app, [command, folder, "--json", *options.get(command, [])])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    if command == "plan":
        assert facts["resident"]
        assert facts["layers"] == 2
    if command == "info":
        assert facts["runs_through"].startswith("mlx-lm ")
        assert (facts["bits"], facts["bytes"]["in_memory"]) == (4, 124800)
    if command == "verify":
        assert facts["passed"]


@pytest.mark.parametrize("command", ["convert", "export"])
def test_what_is_not_done_with_it_is_refused_with_the_way_round(command, folder_of, tmp_path):
    folder = folder_of("qwen3_moe")
    done = CliRunner().invoke(app, [command, str(folder), str(tmp_path / "made")])
    assert isinstance(done.exception, UnsupportedModelError)
    assert done.exception.message == "model_type 'qwen3_moe' is not supported"
    assert "mlx_lm.convert quantizes them" in done.exception.hint
    assert not (tmp_path / "made").exists()


def test_a_hybrid_of_a_family_of_ours_goes_through_mlx_lm():
    hybrid = {"model_type": "granitemoehybrid", "layer_types": ["mamba", "attention"]}
    assert not is_known_family(hybrid)
    assert is_known_family({**hybrid, "layer_types": ["attention", "attention"]})


def test_the_bench_opens_it_in_both_backends(folder_of):
    folder = str(folder_of("qwen3_moe", bits=4))
    tokens = np.array([PROMPT, PROMPT[::-1]])
    last = {}
    for name in ("edgellm", "mlx-lm"):
        variant = prepare_variant(folder, None, name)
        assert (variant.bits, variant.vocabulary) == (4, tiny.VOCABULARY)
        settings = RuntimeSettings(context=64, threads=1, memory=10**8)
        with closing(open_runtime(name, str(variant.path), settings)) as runtime:
            runtime.begin(batch=2, capacity=40)
            runtime.prefill(tokens)
            runtime.decode(4)
            last[name] = runtime.last_tokens()
    assert last["edgellm"] == last["mlx-lm"]
    with pytest.raises(BackendError, match="exports no model of type qwen3_moe"):
        prepare_variant(folder, None, "llama.cpp")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_before_the_download_is_the_plan_after_it(family, folder_of):
    here = read_any_checkpoint(folder_of(family))
    remote = any_checkpoint_of(replace(here.folder, path=Path("owner/name")))
    settings = edgellm.LoadSettings(memory="100MB")
    assert plan_for(remote, settings) == plan_for(here, settings)
    assert (remote.nbytes, remote.parameters) == (here.nbytes, here.parameters)


def test_what_transformers_5_calls_otherwise_is_told_to_mlx_lm(folder_of, tmp_path):
    known = folder_of("qwen3_moe")
    logits = {}
    for name, config in {
        "old": {"rope_theta": 500.0},
        "new": {
            "rope_theta": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
            "num_experts": None,
            "num_local_experts": 4,
        },
    }.items():
        folder = changed(known, tmp_path / name, **config)
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        raw = {key: value for key, value in raw.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
        with edgellm.load(folder, memory="100MB") as llm:
            logits[name] = np.array(llm.logits(PROMPT))
    assert np.array_equal(logits["new"], logits["old"])
    by_kind = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    with pytest.raises(UnsupportedModelError, match="differ by kind of layer, which mlx-lm"):
        edgellm.load(changed(known, tmp_path / "kinds", rope_parameters=by_kind))


def test_a_rotary_scaling_is_read_or_said_not_to_be(folder_of, tmp_path):
    scaling = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    # Qwen's mixture of mlx-lm 0.32.2 has the key, and nothing looks at it
    folder = changed(folder_of("qwen3_moe"), tmp_path / "unread", rope_parameters=scaling)
    with pytest.warns(UserWarning, match="does not read the rotary scaling .'linear'. of this"):
        read_any_checkpoint(folder)
    folder = changed(folder_of("deepseek_v3"), tmp_path / "read", rope_scaling=scaling)
    with edgellm.load(folder, memory="100MB") as llm:
        stretched = np.array(llm.logits(PROMPT))
    with edgellm.load(folder_of("deepseek_v3"), memory="100MB") as llm:
        assert np.abs(np.array(llm.logits(PROMPT)) - stretched).max() > 0.1


@pytest.mark.torch
def test_a_folder_that_transformers_5_saved_has_its_logits(tmp_path):
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    config = {**CONFIGS["qwen3_moe"], "rope_parameters": {"rope_theta": 500.0}}
    del config["rope_theta"]
    theirs = Qwen3MoeForCausalLM(Qwen3MoeConfig(**config)).float().eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            if weight.ndim > 1:
                weight.normal_(0, weight.shape[-1] ** -0.5)
        expected = theirs(torch.tensor([PROMPT])).logits[0].numpy()
    theirs.save_pretrained(tmp_path / "saved")
    tiny.write_tokenizer(tmp_path / "saved")
    with edgellm.load(tmp_path / "saved", memory="100MB") as llm:
        assert np.abs(np.array(llm.logits(PROMPT)) - expected).max() < 1e-4 * expected.std()


@pytest.mark.parametrize("family", ["mamba2", "gpt_oss"])
def test_conversations_in_turn_say_what_each_says_alone(family, folder_of):
    """Also of states that sum up all tokens, and of windows: what cannot be cut is not copied."""
    with edgellm.load(folder_of(family), memory="100MB") as llm:
        require_same_alone_and_in_turn(llm, turns=2)


QWEN_CODER = "<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>\n</function>\n</tool_call>"
GLM = "<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"
KIMI = (
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
    '{"x": 1}<|tool_call_end|><|tool_calls_section_end|>'
)


@pytest.mark.parametrize(
    "text",
    [
        QWEN_CODER,
        GLM,
        KIMI,
        "<|tool_call_start|>[f(x=1)]<|tool_call_end|>",
        "<|tool_call>call:f{x:1}<tool_call|>",
        "<start_function_call>call:f{x:1}<end_function_call>",
    ],
)
def test_its_parsers_read_the_calls_of_other_families(text):
    properties = {"x": {"type": "integer"}}
    parameters = {"type": "object", "properties": properties, "required": ["x"]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    for sizes in ((), [1] * len(text)):
        assert calls_in(text, "Well. " + text, sizes, tools=tools) == ("Well. ", [("f", {"x": 1})])
    cut_off = text[: len(text) // 2]
    assert calls_in(text, cut_off, tools=tools, whole=False) == (cut_off, [])


@pytest.mark.parametrize("family", ["gpt_oss", "mamba2"])
def test_two_streams_read_in_turns_give_what_they_give_alone(family, folder_of):
    """Also where a cache is a state that cannot be cut."""
    with edgellm.load(folder_of(family), memory="100MB") as llm:
        prompts = [PROMPT, PROMPT[5:]]
        alone = [[one.id for one in llm.generate(p, max_tokens=6).tokens] for p in prompts]
        streams = [llm.stream(prompt, max_tokens=6) for prompt in prompts]
        turns = list(zip(*streams, strict=True))
        assert [[pair[place].id for pair in turns] for place in (0, 1)] == alone
