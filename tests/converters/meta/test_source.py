"""Meta's own folders: shards put together, rows brought into order, and both tokenizers."""

import itertools
import json

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.folders import tensors_of
from support.meta_files import params_of, rank_lines, some_ranks, write_meta
from support.tiny import CONFIGS, TEXTS, random_tensors, write_model

from edgellm.converters import convert
from edgellm.converters.meta.source import MetaSource
from edgellm.converters.meta.tokenizer import special_tokens
from edgellm.errors import EdgeLLMError, FormatError, UnsupportedModelError
from edgellm.tokenizer import Tokenizer

# Eight heads of each kind, so that eight shards have one each, as the 70B model's key/value heads
# do.
WIDE = CONFIGS["llama-2"] | {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
}
WIDE |= {"vocab_size": 448}
# int(0.5 * int(8 * 128 / 3)) = 170, and up to 192
MULTIPLE = {"multiple_of": 64, "ffn_dim_multiplier": 0.5}
SCALING = CONFIGS["llama-3.1"]["rope_scaling"] | {"original_max_position_embeddings": 8192}
SCALED = WIDE | {"rope_theta": 500000.0, "rope_scaling": SCALING}
SHARDS = [1, 2, 8]


@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("by_rows", [False, True])
def test_shards_make_the_model_that_was_split(tmp_path, shards, by_rows):
    source = write_meta(
        tmp_path / "meta", WIDE, shards=shards, params=MULTIPLE, vocabulary_by_rows=by_rows
    )
    convert(source, tmp_path / "made", bits=16)
    made, expected = tensors_of(tmp_path / "made"), random_tensors(WIDE)
    assert made.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(np.array(made[name]), values.astype(np.float32)), name
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    said = {
        key: config[key]
        for key in (
            "hidden_size",
            "intermediate_size",
            "num_key_value_heads",
            "vocab_size",
            "rope_theta",
        )
    }
    assert said == {
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_key_value_heads": 8,
        "vocab_size": 448,
        "rope_theta": 1e4,
    }
    assert config["tie_word_embeddings"] is False
    assert (
        Tokenizer.from_folder(tmp_path / "made", vocab_size=448).encode("Once upon a time")[0] == 1
    )


@pytest.mark.torch
@pytest.mark.parametrize("shards", SHARDS)
@pytest.mark.parametrize("scaled", [False, True])
def test_logits_are_those_of_transformers(tmp_path, shards, scaled):
    import torch
    from transformers import AutoModelForCausalLM

    config = SCALED if scaled else WIDE
    params = MULTIPLE | ({"rope_theta": 500000.0, "use_scaled_rope": True} if scaled else {})
    convert(
        write_meta(tmp_path / "meta", config, shards=shards, params=params),
        tmp_path / "made",
        bits=16,
    )
    logits = []
    for path in (write_model(tmp_path / "plain", config), tmp_path / "made"):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        with torch.no_grad():
            logits.append(model(torch.tensor([[3, 50, 7, 120, 9] * 3])).logits)
    assert torch.equal(*logits)


@pytest.mark.parametrize("bits", [4, 8])
def test_it_is_quantized_as_the_same_model_in_hugging_faces_form(tmp_path, bits):
    convert(
        write_meta(tmp_path / "meta", WIDE, shards=2, params=MULTIPLE, dtype=np.float16),
        tmp_path / "made",
        bits=bits,
    )
    convert(
        write_model(tmp_path / "plain", WIDE, dtype=mx.float16), tmp_path / "expected", bits=bits
    )
    made, expected = tensors_of(tmp_path / "made"), tensors_of(tmp_path / "expected")
    assert made.keys() == expected.keys()
    assert all(bool(mx.array_equal(made[name], expected[name])) for name in expected)


def test_a_head_that_is_the_embedding_again_is_left_out(tmp_path):
    tied = CONFIGS["llama-3.2"] | {"vocab_size": 448}
    path = write_meta(
        tmp_path / "meta", tied, params={"head_dim": 32, "hidden_dim": 128, "use_scaled_rope": True}
    )
    convert(path, tmp_path / "made", bits=16)
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    assert config["rope_scaling"]["factor"] == 32.0
    assert config["max_position_embeddings"] == 131072
    assert "lm_head.weight" not in tensors_of(tmp_path / "made")


def merged(word, ranks):
    """Byte-pair encoding as tiktoken does it: the neighbours that make the lowest rank first."""
    parts = [bytes([byte]) for byte in word]
    if word in ranks:
        return [ranks[word]]
    while True:
        found = [
            (ranks[a + b], at)
            for at, (a, b) in enumerate(itertools.pairwise(parts))
            if a + b in ranks
        ]
        if not found:
            return [ranks[part] for part in parts]
        at = min(found)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@pytest.mark.parametrize("scaled", [False, True])
def test_ranks_become_a_tokenizer_that_merges_as_they_do(tmp_path, scaled):
    tokens = some_ranks(" ".join(TEXTS))
    ranks = {token: rank for rank, token in enumerate(tokens)}
    config = CONFIGS["llama-3"] | {"vocab_size": len(tokens) + 256}
    params = {"rope_theta": 500000.0, "hidden_dim": 128, "use_scaled_rope": scaled}
    convert(write_meta(tmp_path / "meta", config, ranks=tokens, params=params), tmp_path / "made")
    tokenizer = Tokenizer.from_folder(tmp_path / "made", vocab_size=config["vocab_size"])
    for word in {word for word in " ".join(TEXTS).split() if word.isalpha()} | {
        "zürich",
        "日本",
        "mouse",
    }:
        assert tokenizer.encode(f" {word}", add_special_tokens=False) == merged(
            f" {word}".encode(), ranks
        )
    text = "The little dog said: it's 12345 o'clock!\n\n  日本 <|eot_id|>"
    ids = tokenizer.encode(text)
    assert ids[0] == len(tokens)
    assert ids[-1] == len(tokens) + special_tokens(scaled=scaled).index("<|eot_id|>")
    assert tokenizer.decode(ids) == text.removesuffix("<|eot_id|>")
    made = json.loads((tmp_path / "made" / "config.json").read_text())
    ends = {tokenizer.id_to_token(token) for token in made["eos_token_id"]}
    assert ends == {"<|end_of_text|>", "<|eot_id|>"} | ({"<|eom_id|>"} if scaled else set())
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}])
    assert tokenizer.id_to_token(rendered[1]) == "<|start_header_id|>"


def test_the_special_tokens_are_256_with_the_ids_that_meta_gives_them():
    for scaled in (False, True):
        tokens = special_tokens(scaled=scaled)
        assert len(set(tokens)) == 256
        assert [tokens[at] for at in (0, 1, 6, 7, 9)] == [
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
        ]
    assert tokens[8] == "<|eom_id|>"
    assert tokens[-1] == "<|reserved_special_token_247|>"
    assert special_tokens(scaled=False)[-1] == "<|reserved_special_token_250|>"


PARAMS = {
    "no dim": {"dim": None},
    "huge": {"dim": 1 << 40},
    "negative": {"n_layers": -3},
    "do not divide into heads": {"n_heads": 7},
    "a text": {"n_heads": "16"},
    "a lying vocabulary": {"vocab_size": 500},
    "another width": {"multiple_of": 1000},
    "more layers": {"n_layers": 5},
    "fewer layers": {"n_layers": 3},
    "multiple of nothing": {"multiple_of": 0},
    "a factor of text": {"ffn_dim_multiplier": "x"},
    "an impossible epsilon": {"norm_eps": "small"},
}


@pytest.mark.parametrize("fault", PARAMS)
def test_lying_parameters_are_refused(tmp_path, fault):
    source = write_meta(tmp_path / "meta", WIDE, shards=2, params=MULTIPLE | PARAMS[fault])
    with pytest.raises(FormatError):
        convert(source, tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["meta"]


def test_shards_without_their_parameters_are_known_for_what_they_are(tmp_path):
    source = write_meta(tmp_path / "meta", WIDE, params=MULTIPLE)
    (source / "params.json").unlink()
    with pytest.raises(FormatError, match=r"lacks the file 'params\.json'"):
        convert(source, tmp_path / "made")


def test_missing_and_unequal_shards_are_refused(tmp_path):
    source = write_meta(tmp_path / "meta", WIDE, shards=8, params=MULTIPLE)
    (source / "consolidated.03.pth").rename(tmp_path / "kept")
    with pytest.raises(FormatError, match=r"lacks consolidated\.03\.pth"):
        convert(source, tmp_path / "made")
    (tmp_path / "kept").rename(source / "consolidated.03.pth")
    (source / "consolidated.07.pth").unlink()
    with pytest.raises(
        FormatError, match=r"7 of .* 8 shards: consolidated\.07\.pth may be missing"
    ) as caught:
        convert(source, tmp_path / "made")
    assert caught.value.hint
    other = write_meta(
        tmp_path / "other", WIDE | {"intermediate_size": 256}, shards=8, params=MULTIPLE
    )
    (other / "consolidated.07.pth").rename(source / "consolidated.07.pth")
    with pytest.raises(FormatError, match="another type or shape in each shard"):
        convert(source, tmp_path / "made")
    fewer = write_meta(
        tmp_path / "fewer", WIDE | {"num_hidden_layers": 3}, shards=8, params=MULTIPLE
    )
    (fewer / "consolidated.07.pth").replace(source / "consolidated.07.pth")
    with pytest.raises(FormatError, match="do not hold the same tensors"):
        convert(source, tmp_path / "made")
    (source / "params.json").write_text(json.dumps(params_of(WIDE, moe={"num_experts": 8})))
    with pytest.raises(UnsupportedModelError, match="moe"):
        convert(source, tmp_path / "made")
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "made.partial").exists()


def test_no_tokenizer_is_said_and_one_in_the_folder_above_is_found(tmp_path):
    source = write_meta(tmp_path / "meta" / "7B", WIDE, params=MULTIPLE)
    (source / "tokenizer.model").rename(tmp_path / "meta" / "tokenizer.model")
    convert(source, tmp_path / "made")
    assert (tmp_path / "made" / "tokenizer.model").exists()
    (tmp_path / "meta" / "tokenizer.model").unlink()
    with pytest.raises(FormatError, match=r"no tokenizer\.model"):
        convert(source, tmp_path / "other")


BYTES = [bytes([byte]) for byte in range(256)]
RANKS = {
    "a byte is missing": rank_lines(BYTES[1:]),
    "a token twice": rank_lines([*BYTES, b"ab", b"ab"]),
    "a gap": rank_lines(BYTES) + b"YWI= 300\n",
    "no rank": rank_lines(BYTES) + b"YWI=\n",
    "a huge rank": rank_lines(BYTES) + b"YWI= " + b"9" * 5000 + b"\n",
    "no base64": rank_lines(BYTES) + b"?? 256\n",
    "a huge token": rank_lines([*BYTES, b"a" * 100_000]),
    "cut short": rank_lines(BYTES)[:-3],
    "an empty token": rank_lines([*BYTES, b""]),
}


@pytest.mark.parametrize("fault", RANKS)
def test_damaged_ranks_are_refused(tmp_path, fault):
    source = write_meta(tmp_path / "meta", WIDE, params=MULTIPLE)
    (source / "tokenizer.model").write_bytes(RANKS[fault])
    with pytest.raises(FormatError, match="damaged"):
        convert(source, tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["meta"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of two shards, and their bytes."""
    source = write_meta(
        tmp_path_factory.mktemp("meta") / "source",
        WIDE | {"num_hidden_layers": 1},
        shards=2,
        params=MULTIPLE,
    )
    return source, {file.name: file.read_bytes() for file in source.iterdir()}


@settings(max_examples=40)
@given(st.data())
def test_a_damaged_folder_is_an_error_of_ours_or_a_model(whole, data):
    source, contents = whole
    name = data.draw(st.sampled_from(sorted(contents)))
    content = bytearray(contents[name])
    kind = data.draw(st.sampled_from(["cut", "flip", "insert"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        del content[at:]
    elif kind == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        content[at:at] = data.draw(st.binary(min_size=1, max_size=16))
    (source / name).write_bytes(content)
    try:
        opened = MetaSource(source)
        for tensor, stored in opened.tensors.items():
            assert opened.rows(tensor, 0, stored.rows).nbytes == stored.nbytes
    except EdgeLLMError:
        pass
    finally:
        (source / name).write_bytes(contents[name])
