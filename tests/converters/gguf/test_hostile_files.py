"""GGUF files that are cut short, or lie: our error, at once, and nothing left behind."""

import os
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gguf_files import add_byte_level, write_gguf
from support.tiny import CONFIGS

from edgellm.converters import convert
from edgellm.converters.gguf.header import open_gguf
from edgellm.converters.gguf.header_reader import MAX_HEADER_BYTES
from edgellm.converters.gguf.source import GgufSource
from edgellm.errors import EdgeLLMError, FormatError, TokenizerError, UnsupportedModelError

CONFIG = CONFIGS["llama-2"] | {"num_hidden_layers": 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    write_gguf(path, CONFIG, kinds=lambda name: "Q4_0")
    return path.read_bytes()


def text(value):
    return struct.pack("<Q", len(value)) + value


def header(*, keys=(), tensors=(), tensor_count=None, key_count=None, version=3):
    data = b"GGUF" + struct.pack(
        "<IQQ", version, tensor_count or len(tensors), key_count or len(keys)
    )
    return data + b"".join(keys) + b"".join(tensors)


def tensor(name=b"a", axes=(32,), kind=0, offset=0, rank=None):
    return text(name) + struct.pack(f"<I{len(axes)}QIQ", rank or len(axes), *axes, kind, offset)


def array(name, kind, count, content=b""):
    return text(name) + struct.pack("<IIQ", 9, kind, count) + content


NESTED = b"".join(struct.pack("<IQ", 9, 1) for _ in range(10_000))

LIES = {
    "magic": (b"GGML" + bytes(60), "is not a GGUF file"),
    "empty": (b"", "cut short"),
    "a length only": (b"GGUF", "cut short"),
    "tensor count": (header(tensor_count=1 << 60), "tensors"),
    "many tensors": (header(tensor_count=60_000), "cut short"),
    "key count": (header(key_count=1 << 63), "metadata"),
    "huge key": (header(key_count=1) + struct.pack("<Q", (1 << 64) - 1), "bytes for a key"),
    "huge text": (header(keys=[text(b"k") + struct.pack("<IQ", 8, 1 << 62)]), "bytes for 'k'"),
    "text past the end": (header(keys=[text(b"k") + struct.pack("<IQ", 8, 1 << 25)]), "cut short"),
    "huge array": (header(keys=[array(b"k", 4, 1 << 61)]), "values for 'k'"),
    "array past the header": (header(keys=[array(b"k", 10, MAX_HEADER_BYTES // 4)]), "at most"),
    "many texts": (header(keys=[array(b"k", 8, 1 << 22)]), "texts"),
    "array in an array": (header(keys=[array(b"k", 9, 1, NESTED)]), "unknown type 9"),
    "unknown value": (header(keys=[text(b"k") + struct.pack("<I", 77)]), "unknown type 77"),
    "a key twice": (header(keys=[text(b"k") + struct.pack("<II", 4, 1)] * 2), "twice"),
    "not UTF-8": (header(keys=[text(b"\xff") + struct.pack("<II", 4, 1)]), "not UTF-8"),
    "alignment": (
        header(keys=[text(b"general.alignment") + struct.pack("<II", 4, 12)]),
        "alignment",
    ),
    "no axes": (header(tensors=[tensor(axes=(), rank=0)]), "0 axes"),
    "many axes": (header(tensors=[tensor(axes=(1,) * 9)]), "9 axes"),
    "negative size": (header(tensors=[tensor(axes=((1 << 64) - 1, 2))]), "impossible shape"),
    "product overflows": (header(tensors=[tensor(axes=(1 << 40, 1 << 40))]), "impossible shape"),
    "no values": (header(tensors=[tensor(axes=(0,))]), "impossible shape"),
    "half a block": (header(tensors=[tensor(axes=(33,), kind=2)]), "divide into blocks"),
    "offset past the end": (header(tensors=[tensor(offset=1 << 50)]) + bytes(4096), "cut short"),
    "wrapping offset": (header(tensors=[tensor(offset=(1 << 64) - 32)]) + bytes(4096), "cut short"),
    "off the alignment": (header(tensors=[tensor(offset=8)]) + bytes(4096), "alignment"),
    "overlap": (
        header(tensors=[tensor(), tensor(b"b", offset=32)]) + bytes(4096),
        "inside another",
    ),
    "a tensor twice": (
        header(tensors=[tensor(), tensor(offset=128)]) + bytes(4096),
        "occurs twice",
    ),
    "no tensors": (header() + bytes(64), "no tensor"),
}


@pytest.mark.parametrize("kind", [31, 43, 9999])
def test_a_type_of_another_time_is_no_damage(tmp_path, kind):
    (tmp_path / "model.gguf").write_bytes(header(tensors=[tensor(kind=kind)]))
    with pytest.raises(UnsupportedModelError, match=f"type {kind}"):
        convert(tmp_path / "model.gguf", tmp_path / "made")


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_told_at_once(tmp_path, lie):
    data, message = LIES[lie]
    (tmp_path / "model.gguf").write_bytes(data)
    begun = time.process_time()
    tracemalloc.start()
    with pytest.raises(FormatError, match=message):
        convert(tmp_path / "model.gguf", tmp_path / "made")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * MAX_HEADER_BYTES
    assert time.process_time() - begun < 5
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize("version", [1, 4, 0x03000000])
def test_other_versions_are_refused(tmp_path, version):
    (tmp_path / "model.gguf").write_bytes(header(version=version))
    with pytest.raises(UnsupportedModelError, match="version"):
        open_gguf(tmp_path / "model.gguf")


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.9, 0.9999])
def test_a_cut_file_is_refused(tmp_path, whole, share):
    (tmp_path / "model.gguf").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FormatError, match="cut short"):
        convert(tmp_path / "model.gguf", tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_a_file_cut_after_it_was_opened_is_an_error_of_ours(tmp_path, whole):
    path = tmp_path / "model.gguf"
    path.write_bytes(whole)

    def cut(step):
        path.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(EdgeLLMError):
        convert(path, tmp_path / "made", progress=cut)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "missing", ["tokenizer.ggml.tokens", "llama.embedding_length", "llama.block_count"]
)
def test_what_is_missing_is_named(tmp_path, whole, missing):
    name = missing.encode()
    assert whole.count(text(name)) == 1
    (tmp_path / "model.gguf").write_bytes(whole.replace(text(name), text(name[:-1] + b"_")))
    with pytest.raises(EdgeLLMError, match=missing.rpartition(".")[2]):
        convert(tmp_path / "model.gguf", tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize(
    "key",
    [
        "general.architecture",
        "split.count",
        "split.no",
        "llama.rope.scaling.type",
        "llama.block_count",
        "llama.rope.freq_base",
        "tokenizer.chat_template",
    ],
)
def test_an_array_where_one_value_belongs_is_an_error_of_ours(tmp_path, key):
    def metadata(writer):
        writer.kv_data[0].pop(key, None)
        writer.add_array(key, [1, 2])

    write_gguf(tmp_path / "model.gguf", CONFIG, metadata=metadata)
    with pytest.raises(EdgeLLMError):
        GgufSource(tmp_path / "model.gguf")


def byte_level(**changes):
    """A byte-level vocabulary with other lists in place of its own."""

    def vocabulary(writer, size):
        add_byte_level(writer, size)
        for key, values in changes.items():
            writer.kv_data[0].pop(f"tokenizer.ggml.{key}")
            writer.add_array(f"tokenizer.ggml.{key}", values)

    return vocabulary


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre": [1, 2]}, "a text"),
        ({"model": [1, 2]}, "a text"),
        ({"token_type": [float("nan")] * CONFIG["vocab_size"]}, "an array of 320 numbers"),
        ({"token_type": [5] * CONFIG["vocab_size"]}, "no token that is used"),
        ({"tokens": [5] * CONFIG["vocab_size"]}, "an array of texts"),
        ({"merges": [5, 6]}, "merges"),
        ({"eos_token_id": [5, 6]}, "a whole number"),
        ({"add_bos_token": [5, 6]}, "true or false"),
    ],
)
def test_tokens_of_the_wrong_type_are_an_error_of_ours(tmp_path, changes, message):
    write_gguf(tmp_path / "model.gguf", CONFIG, vocabulary=byte_level(**changes))
    with pytest.raises(TokenizerError, match=message):
        GgufSource(tmp_path / "model.gguf")


def test_a_shard_that_is_not_what_its_name_says_is_refused(tmp_path):
    write_gguf(tmp_path / "model.gguf", CONFIG, shards=5)
    names = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / names[1]).write_bytes((tmp_path / names[0]).read_bytes())
    with pytest.raises(FormatError, match="not the shard"):
        open_gguf(tmp_path / names[0])


def test_a_link_to_another_users_file_is_not_followed_for_shards(tmp_path):
    write_gguf(tmp_path / "model.gguf", CONFIG, shards=5)
    names = sorted(path.name for path in tmp_path.iterdir())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in names[:-1]:
        (tmp_path / name).rename(folder / name)
    (tmp_path / names[-1]).rename(elsewhere / names[-1])
    theirs = Path("/etc/hosts")
    if os.getuid() == 0:
        theirs = elsewhere / names[-1]
        os.chown(theirs, 12345, 12345)
    (folder / names[-1]).symlink_to(theirs)
    with pytest.raises(FormatError, match="link"):
        open_gguf(folder / names[0])


@given(data=st.binary(max_size=400), keys=st.integers(0, 3), tensors=st.integers(0, 3))
def test_any_bytes_behind_the_magic_are_an_error_of_ours(tmp_path_factory, data, keys, tensors):
    path = tmp_path_factory.getbasetemp() / "any.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + data)
    with pytest.raises(EdgeLLMError):
        open_gguf(path)
