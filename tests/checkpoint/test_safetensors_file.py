"""One safetensors file: headers that lie, and files that appear whole or not at all."""

import json
import os
import resource
import subprocess
import sys
import tracemalloc

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from edgellm.checkpoint.safetensors_file import TensorData, read_header, write_tensors
from edgellm.errors import ConversionError, FormatError, ReadError
from edgellm.files.atomic import file_record
from edgellm.files.strict_json import parse_json, read_json


def pack(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape=(2,), dtype="F32", begin=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_what_is_written_is_read_by_everyone(tmp_path):
    values = {
        "a": np.arange(12, dtype=np.float32).reshape(3, 4),
        "b": np.arange(5, dtype=np.uint8),
        "c": np.ones((2, 2), np.float16),
    }
    codes = {"a": "F32", "b": "U8", "c": "F16"}
    path = tmp_path / "x.safetensors"
    record = write_tensors(
        path,
        [TensorData(name, codes[name], value.shape, value) for name, value in values.items()],
        metadata={"k": "v"},
    )
    tensors, metadata = read_header(path)
    assert metadata == {"k": "v"}
    assert record == file_record(path)
    assert min(tensor.offset for tensor in tensors.values()) == 16384
    assert list(tensors) == ["a", "b", "c"]
    raw = path.read_bytes()
    by_mlx, by_safetensors = mx.load(str(path)), load_file(path)
    for name, value in values.items():
        tensor = tensors[name]
        assert raw[tensor.offset : tensor.offset + tensor.nbytes] == value.tobytes()
        assert np.array_equal(by_safetensors[name], value)
        assert np.array_equal(np.array(by_mlx[name]), value)


def test_headers_by_others_are_read(tmp_path):
    values = {"w": np.arange(6, dtype=np.float16).reshape(2, 3), "v": np.zeros(3, np.float32)}
    save_file(values, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    mx.save_safetensors(
        str(tmp_path / "mlx.safetensors"), {name: mx.array(value) for name, value in values.items()}
    )
    for file in ("theirs", "mlx"):
        tensors, _ = read_header(tmp_path / f"{file}.safetensors")
        raw = (tmp_path / f"{file}.safetensors").read_bytes()
        for name, value in values.items():
            assert tensors[name].shape == value.shape
            assert raw[tensors[name].offset :][: tensors[name].nbytes] == value.tobytes()


def test_pieces_are_asked_for_one_at_a_time(tmp_path):
    asked = []

    def pieces(name):
        for index in range(4):
            asked.append(name)
            yield bytes([index] * 2)

    write_tensors(
        tmp_path / "x.safetensors", [TensorData(name, "U8", (8,), pieces(name)) for name in "ab"]
    )
    assert asked == ["a"] * 4 + ["b"] * 4
    assert (tmp_path / "x.safetensors").read_bytes()[16384:] == b"\0\0\1\1\2\2\3\3" * 2


LIES = {
    "empty": b"",
    "seven bytes": b"1234567",
    "length past the end": pack({}, length=10**15),
    "no brace": pack(b" {}"),
    "no JSON": pack(b"{hello}"),
    "not UTF-8": pack(b'{"\xff":1}'),
    "lone surrogate": pack(
        b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"x" * 8
    ),
    "a list": pack(b"[]"),
    "deep": pack(b'{"a":' * 3000 + b"1" + b"}" * 3000),
    "not quite so deep": pack(b'{"a":' * 100 + b"1" + b"}" * 100),
    "NaN": pack(b'{"__metadata__":{"a":NaN}}'),
    "no offsets": pack({"a": {"dtype": "F32", "shape": [2]}}, b"x" * 8),
    "entry is a list": pack({"a": []}),
    "unknown dtype": pack({"a": entry(dtype="F7")}, b"x" * 8),
    "dtype is a number": pack({"a": entry(dtype=4)}, b"x" * 8),
    "past the end": pack({"a": entry(end=16, shape=(4,))}, b"x" * 8),
    "bytes left over": pack({"a": entry()}, b"x" * 9),
    "no tensor claims it": pack({}, b"x" * 9),
    "overlap": pack({"a": entry(), "b": entry(begin=4, end=12)}, b"x" * 12),
    "same place twice": pack({"a": entry(), "b": entry()}, b"x" * 8),
    "hole": pack({"a": entry(), "b": entry(begin=12, end=20)}, b"x" * 20),
    "backwards": pack({"a": entry(begin=8, end=0)}, b"x" * 8),
    "negative offset": pack({"a": entry(begin=-8, end=0)}, b"x" * 8),
    "negative shape": pack({"a": entry(shape=(-2,))}, b"x" * 8),
    "two negatives": pack({"a": entry(shape=(-2, -1))}, b"x" * 8),
    "shape and offsets differ": pack({"a": entry(shape=(3,))}, b"x" * 8),
    "product wraps at 2**64": pack({"a": entry(shape=(1 << 62, 4))}, b"x" * 8),
    "huge number": pack(
        b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,8]}}' % (b"9" * 5000), b"x" * 8
    ),
    "a float": pack(b'{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}', b"x" * 8),
    "true is no length": pack(b'{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}', b"x"),
    "three offsets": pack(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}}', b"x" * 8),
    "nine axes": pack({"a": entry(shape=(2, *[1] * 8))}, b"x" * 8),
    "same name twice": pack(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), b"x" * 8),
    "metadata is a list": pack({"__metadata__": []}),
    "metadata is no text": pack({"__metadata__": {"a": 1}}),
}

# Made only when they are tested.
LARGE_LIES = {
    "header of 100 MB": lambda: pack(b"{" + b" " * (100 << 20)),
    "many": lambda: pack({str(index): [] for index in range(200_000)}),
}


@pytest.mark.parametrize("lie", [*LIES, *LARGE_LIES])
def test_a_header_that_lies_is_refused_in_little_memory(tmp_path, lie):
    path = tmp_path / "model.safetensors"
    path.write_bytes(LIES[lie] if lie in LIES else LARGE_LIES[lie]())
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["U8", "F16", "F32", "X"]),
                "shape": st.lists(st.integers(-1, 4), max_size=3),
                "data_offsets": st.lists(st.integers(-1, 40), min_size=1, max_size=3),
            }
        ),
        max_size=3,
    ),
    st.integers(0, 40),
)
def test_any_header_is_refused_or_true(tmp_path_factory, header, size):
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(pack(header, b"x" * size))
    check(path)


@given(st.data())
def test_a_damaged_header_is_refused_or_true(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "x.safetensors"
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.uint8)}, path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(
        raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    )
    check(path)


def check(path):
    """Either our error, or tensors that fill the file without touching each other."""
    try:
        tensors, _ = read_header(path)
    except FormatError:
        return
    end = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    for tensor in tensors.values():
        assert tensor.offset == end
        end += tensor.nbytes
    assert end == path.stat().st_size


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_our_error(data):
    try:
        value = parse_json(data, "it")
    except FormatError:
        return
    assert value == json.loads(data)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(FormatError, match="not a regular file"):
        read_json(tmp_path / "config.json")
    with pytest.raises(ReadError):
        read_json(tmp_path / "nothing.json")


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def pieces():
        yield b"1234"
        raise KeyboardInterrupt

    (tmp_path / "x.safetensors").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_tensors(tmp_path / "x.safetensors", [TensorData("a", "U8", (8,), pieces())])
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
    assert (tmp_path / "x.safetensors").read_bytes() == b"old"


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from edgellm.errors import ConversionError\n"
        "from edgellm.checkpoint.safetensors_file import TensorData, write_tensors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "data = TensorData('a', 'U8', (200_000,), bytes(200_000))\n"
        "try: write_tensors(Path(sys.argv[1]), [data])\n"
        "except ConversionError as error: print(error.message, '|', error.hint)\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.safetensors")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("no space left for")
    assert "raise the limit" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_said(tmp_path):
    with pytest.raises(ConversionError, match="cannot be written"):
        write_tensors(tmp_path / "gone" / "x.safetensors", [])
