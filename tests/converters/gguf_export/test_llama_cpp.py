"""What we export, in llama.cpp itself; left out where llama-cpp-python is not installed.

Marked slow, since some builds of llama.cpp bring down the process that they run in: `make slow`, or
by name.
"""

import mlx.core as mx
import numpy as np
import pytest
from support.gguf_files import WIDE, add_byte_level, write_gguf
from support.tiny import CONFIGS, write_model
from support.tiny_families import CONFIGS as OTHERS
from support.tiny_tokenizers import LLAMA as PIECES
from support.tiny_tokenizers import write_pieces

import edgellm
from edgellm.converters import convert, export
from edgellm.converters.tokenizers.pretokenizers import OTHER_NAMES, PATTERNS
from edgellm.tokenizer import Tokenizer

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
pytestmark = pytest.mark.slow

PROMPTS = ["Once upon a time", "The little dog", "One day, Lily and Tom went to the"]
TOKENS = 64
TEXTS = [
    *PROMPTS,
    "",
    " two  spaces\n\nand lines",
    "123 4567",
    "glücklich 日本 🙂",
    "<|end|>after a special token",
]
RUNS = {
    name: config
    for name, config in CONFIGS.items()
    if name not in ("mistral-window", "qwen2-window", "qwen3-biases")
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
RUNS |= {
    "yarn": CONFIGS["llama-2"] | {"rope_scaling": YARN},
    "yarn with its own factor": CONFIGS["llama-2"]
    | {"rope_scaling": YARN | {"attention_factor": 1.5}},
}
RUNS |= {name: OTHERS[name] for name in ("olmo2", "olmo3", "hunyuan")}
"""What llama.cpp computes as we do."""


def opened(path):
    """A model in llama.cpp without repacked weights, with which some builds crash on AMX."""
    library, usual = llama_cpp.llama_cpp, llama_cpp.llama_cpp.llama_model_default_params

    def plain():
        found = usual()
        found.use_extra_bufts = False
        return found

    with pytest.MonkeyPatch.context() as patch:  # llama-cpp-python has no setting for it
        patch.setattr(library, "llama_model_default_params", plain)
        # float32
        return llama_cpp.Llama(
            str(path), n_ctx=512, n_threads=2, verbose=False, logits_all=True, type_k=0, type_v=0
        )


def greedy(llm, prompt, count):
    return [token.id for token in llm.stream(prompt, max_tokens=count, temperature=0.0)]


def likeliest(model, ids):
    model.reset()
    model.eval(ids)
    return np.array(model.scores[: len(ids)]).argmax(axis=-1).tolist()


@pytest.fixture(scope="module", params=["F16", "4 bits"])
def bundled(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundled")
    source = "stories"
    if request.param == "F16":
        source = convert("stories", folder / "sixteen", bits=16, dtype="float16").path
    report = export(source, folder / "model.gguf")
    assert report.kinds.keys() == {"F16" if request.param == "F16" else "Q4_1"}
    with edgellm.load(source, activations="float") as llm:
        yield request.param, llm, opened(folder / "model.gguf")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_bundled_model_says_the_same(bundled, prompt):
    kind, llm, model = bundled
    ids, answer = llm.tokenizer.encode(prompt), greedy(llm, prompt, TOKENS)
    assert len(answer) == TOKENS
    after = likeliest(model, [*ids, *answer])[len(ids) - 1 : -1]
    agreed = sum(one == other for one, other in zip(answer, after, strict=True))
    # llama.cpp rounds activations to eight bits where weights are quantized
    assert agreed >= (TOKENS if kind == "F16" else TOKENS - 2)
    if kind == "F16":
        model.reset()
        stream = model.generate(ids, temp=0.0, top_k=1)
        assert [next(stream) for _ in range(TOKENS)] == answer


def test_the_bundled_model_s_texts_become_the_same_tokens(bundled):
    _, llm, model = bundled
    # after a special token llama.cpp puts a space, and this tokenizer says not to ("legacy": false)
    for text in TEXTS[:-1]:
        assert model.tokenize(text.encode(), add_bos=True, special=True) == llm.tokenizer.encode(
            text
        ), text


@pytest.mark.parametrize("name", RUNS)
def test_every_kind_of_model_computes_the_same(tmp_path, name):
    source = write_model(tmp_path / "model", RUNS[name], dtype=mx.float16)
    export(source, tmp_path / "out.gguf")
    model = opened(tmp_path / "out.gguf")
    with edgellm.load(source, activations="float") as llm:
        for text in TEXTS:
            assert model.tokenize(
                text.encode(), add_bos=True, special=True
            ) == llm.tokenizer.encode(text), text
        prompt = "Once upon a time there was a little dog. They went to the park, all day long"
        ids, answer = llm.tokenizer.encode(prompt), greedy(llm, prompt, 32)
        assert likeliest(model, [*ids, *answer])[len(ids) - 1 : -1] == answer


def test_a_sentencepiece_tokenizer_finds_the_same_tokens(tmp_path):
    source = write_model(
        tmp_path / "model",
        CONFIGS["llama-2"] | {"vocab_size": 512},
        dtype=mx.float16,
        tokenizer=False,
    )
    write_pieces(source, PIECES | {"legacy": True})
    export(source, tmp_path / "out.gguf")
    model, tokenizer = opened(tmp_path / "out.gguf"), Tokenizer.from_folder(source)
    for text in [*TEXTS, "<|user|>Hello there<|end|><|assistant|>"]:
        assert model.tokenize(text.encode(), add_bos=True, special=True) == tokenizer.encode(
            text
        ), text


STRETCHED = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
    "long_factor": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 40.0, 50.0],
}
IN_PART = {key: STRETCHED[key][:6] for key in ("short_factor", "long_factor")}
WINDOWS = ["sliding_attention", "full_attention"] * 2
GEMMA = {
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": 9,
    "num_hidden_layers": 4,
}
LONG = {"original_max_position_embeddings": 64}
FAMILIES = {
    "llama with longrope": LONG | {"rope_parameters": STRETCHED},
    "phi3": LONG | {"rope_parameters": STRETCHED | IN_PART | {"partial_rotary_factor": 0.75}},
    "granite": {
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.3,
        "residual_multiplier": 0.5,
        "logits_scaling": 0.7,
    },
    "ernie4_5": {"head_dim": 16, "tie_word_embeddings": True},
    "seed_oss": {"head_dim": 24, "attention_out_bias": False},
    "smollm3": {"num_hidden_layers": 4},
    "olmo2": {"tie_word_embeddings": False},
    "olmo3": {"layer_types": WINDOWS, "sliding_window": 9, "num_hidden_layers": 4},
    "exaone4": {"head_dim": 16, "sliding_window": None, "layer_types": ["full_attention"] * 3},
    "hunyuan_v1_dense": {"head_dim": 16, "tie_word_embeddings": True},
    "gemma2": GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": GEMMA
    | {
        "layer_types": WINDOWS,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
        },
    },
}
"""Families as transformers saves them, which needs torch."""


@pytest.mark.filterwarnings("ignore:arithmetic runs in MLX's own CPU kernels:RuntimeWarning")
@pytest.mark.torch
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_computes_the_same(tmp_path, name):
    from support.published_models import save_model

    config = {"max_position_embeddings": 512} | FAMILIES[name]
    save_model(tmp_path / "model", name.split()[0], **config)
    convert(tmp_path / "model", tmp_path / "made", bits=16)
    export(tmp_path / "made", tmp_path / "out.gguf")
    model = opened(tmp_path / "out.gguf")
    ids = np.random.RandomState(3).randint(5, 320, 100).tolist()
    with edgellm.load(tmp_path / "made", activations="float", context=512) as llm:
        expected, answer = np.array(llm.logits(ids)), greedy(llm, ids, 16)
    model.eval(ids)
    found = np.array(model.scores[: len(ids)])
    # ggml reads GELU from a table of float16
    error = 3e-2 if "gemma" in name else 1e-2
    assert np.abs(found - expected).max() < error
    assert likeliest(model, [*ids, *answer])[len(ids) - 1 : -1] == answer


CUTS = [
    *TEXTS[:-1],
    "HelloWorld's camelCASE it'S 12345 67",
    "price: $3.50 (or less)... a/b//c\n/d\t\tx  y",
    "\u6f22\u5b57\u3068\u304b\u306a\u30ab\u30ca 2024\u5e74 \ud55c\uad6d\uc5b4",
    "#include <x.h>\r\n  if (a==b) { return; }\n\n\n",
]


@pytest.mark.parametrize("name", [*PATTERNS, *OTHER_NAMES])
def test_a_file_s_text_is_cut_as_llama_cpp_cuts_it(tmp_path, name):
    def say(writer, size):
        # it merges over any cut, so that each cut shows
        add_byte_level(writer, size, pre=name, texts=CUTS, cut=False)

    write_gguf(tmp_path / "model.gguf", WIDE, vocabulary=say)
    convert(tmp_path / "model.gguf", tmp_path / "made", bits=16)
    tokenizer = Tokenizer.from_folder(tmp_path / "made", vocab_size=512)
    model = llama_cpp.Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False)
    for text in CUTS:
        theirs = model.tokenize(text.encode(), add_bos=True, special=True)
        assert theirs == tokenizer.encode(text), text
