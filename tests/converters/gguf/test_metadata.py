"""Metadata of another type than expected: an error that names file, key and both types."""

import pytest
from fuzz.doors.gguf import CONFIG
from fuzz.gguf_structure import ARRAY, Tensor, copied, put_together, take_apart
from support.gguf_files import add_byte_level, write_gguf

from edgellm.converters.gguf.source import GgufSource
from edgellm.errors import FormatError, TokenizerError

BOOL, FLOAT32, UINT32, STRING = 7, 6, 4, 8
VALUES = {
    "text": (STRING, b"x"),
    "integer": (UINT32, 1),
    "real": (FLOAT32, 1.5),
    "flag": (BOOL, True),
    "texts": (ARRAY, (STRING, [b"x", b"y"])),
    "integers": (ARRAY, (UINT32, [1, 2])),
    "reals": (ARRAY, (FLOAT32, [0.5] * 320)),
    "flags": (ARRAY, (BOOL, [True] * 320)),
    "nothing": (ARRAY, (STRING, [])),
}
WANTED = {
    "general.architecture": "text",
    "general.alignment": "integer",
    "split.no": "integer",
    "split.count": "integer",
    **dict.fromkeys(
        [
            f"llama.{name}"
            for name in (
                "block_count", "embedding_length", "feed_forward_length", "context_length",
                "attention.head_count", "attention.head_count_kv", "attention.key_length",
                "attention.value_length", "rope.dimension_count", "expert_count",
            )
        ],
        "integer",
    ),
    "llama.attention.layer_norm_rms_epsilon": "real",
    "llama.rope.freq_base": "real",
    "llama.rope.scale_linear": "real",
    "llama.rope.scaling.type": "text",
    "tokenizer.chat_template": "text",
    "tokenizer.chat_template.tool_use": "text",
    **{
        f"tokenizer.ggml.{name}": kind
        for name, kind in {
            "model": "text", "pre": "text", "tokens": "texts", "merges": "texts",
            "token_type": "integers", "bos_token_id": "integer", "eos_token_id": "integer",
            "eot_token_id": "integer", "eom_token_id": "integer", "padding_token_id": "integer",
            "add_bos_token": "flag", "add_eos_token": "flag",
        }.items()
    },
}  # fmt: skip
ALSO = {("real", "integer"), ("integer", "integers"), ("texts", "nothing")}
"""Wanted and given types that are no fault of the type."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    write_gguf(path, CONFIG, vocabulary=add_byte_level)
    return take_apart(path)


@pytest.mark.parametrize("key", WANTED)
def test_a_value_of_another_type_is_named_with_what_it_must_be(tmp_path, whole, key):
    path = tmp_path / "model.gguf"
    for given, value in VALUES.items():
        if given == WANTED[key] or (WANTED[key], given) in ALSO:
            continue
        model = copied(whole)
        model.keys = [item for item in model.keys if item[0] != key.encode()]
        model.keys.append((key.encode(), *value))
        path.write_bytes(put_together(model))
        with pytest.raises((FormatError, TokenizerError), match="it must be") as caught:
            GgufSource(path)
        assert f"{path}: {key} is " in caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "IQ4_NL", "MXFP4"])
def test_a_vector_in_blocks_is_refused_by_name(tmp_path, whole, kind):
    import gguf

    number = gguf.GGMLQuantizationType[kind]
    nbytes = gguf.GGML_QUANT_SIZES[number][1]
    model = copied(whole)
    [at] = [at for at, one in enumerate(model.tensors) if one.name == b"output_norm.weight"]
    model.tensors[at] = Tensor(b"output_norm.weight", [32], int(number), bytes(nbytes))
    path = tmp_path / "model.gguf"
    path.write_bytes(put_together(model))
    with pytest.raises(FormatError, match=rf"output_norm.weight of .* type {kind}; only matrices"):
        GgufSource(path)
