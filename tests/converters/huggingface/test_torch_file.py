"""PyTorch's weight files, read without torch and without running what is in them."""

import os
import pickle
import pickletools
import struct
import tracemalloc
import zipfile
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.torch_files import (
    number,
    numbers,
    pickled_tensor,
    state,
    text,
    write_arrays,
    write_zip,
)

from edgellm.converters.huggingface.source import HuggingFaceSource
from edgellm.converters.huggingface.torch_file import LEGACY_MAGIC, read_torch_file
from edgellm.converters.huggingface.unpickler import MAX_INSTRUCTIONS, read_pickle
from edgellm.errors import EdgeLLMError, FormatError


def read_all(folder):
    """Each tensor's values, as the converter gets them."""
    (folder / "config.json").write_text("{}")
    source = HuggingFaceSource(folder)
    types = {"F32": np.float32, "F16": np.float16, "I64": np.int64}
    return {
        name: np.concatenate(
            [source.rows(name, row, row + 1) for row in range(tensor.rows)]
            or [np.empty(0, np.uint8)]
        )
        .view(types[tensor.dtype])
        .reshape(tensor.shape)
        for name, tensor in source.tensors.items()
    }


def test_tensors_are_found_where_they_lie(tmp_path):
    arrays = {
        "a": np.arange(12, dtype=np.float32).reshape(3, 4),
        "b": np.arange(5, dtype=np.float16),
        "c": np.ones((2, 1, 3), np.int64),
    }
    write_arrays(tmp_path / "pytorch_model.bin", arrays)
    for name, values in read_all(tmp_path).items():
        assert np.array_equal(values, arrays[name])


def test_views_are_gathered(tmp_path):
    base = np.arange(24, dtype=np.float32)
    views = {
        "turned": ((4, 6), (1, 4), 0),
        "inner": ((3, 2), (6, 1), 7),
        "spread": ((3, 4), (0, 1), 2),
        "every other": ((6,), (2,), 1),
    }
    entries = {
        name: pickled_tensor("0", base, offset=offset, shape=shape, strides=strides)
        for name, (shape, strides, offset) in views.items()
    }
    write_zip(tmp_path / "pytorch_model.bin", state(entries), {"0": base})
    found = read_all(tmp_path)
    for name, (shape, strides, offset) in views.items():
        expected = np.lib.stride_tricks.as_strided(
            base[offset:], shape, [stride * 4 for stride in strides]
        )
        assert np.array_equal(found[name], expected)


def test_the_layout_before_torch_1_6_is_read(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    storage = (
        b"("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text("k")
        + text("cpu")
        + number(6)
        + b"NtQ"
    )
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number(0)
        + numbers((2, 3))
        + numbers((3, 1))
        + b"\x89}tR"
    )
    head = [
        pickle.dumps(LEGACY_MAGIC, 2),
        pickle.dumps(1001, 2),
        pickle.dumps({"little_endian": True}, 2),
    ]
    body = state({"a": tensor}) + pickle.dumps(["k"], 2) + struct.pack("<q", 6) + array.tobytes()
    (tmp_path / "pytorch_model.bin").write_bytes(b"".join(head) + body)
    assert np.array_equal(read_all(tmp_path)["a"], array)
    (tmp_path / "pytorch_model.bin").write_bytes(b"".join(head) + body[:-1])
    with pytest.raises(FormatError, match="cut short"):
        read_all(tmp_path)


class Canary:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def canaries(file):
    """Pickles that would make a file if anything in them ran."""
    command = f"touch {file}"
    call = text(command)
    yield pickle.dumps(Canary(os.system, command), 2)
    yield pickle.dumps(Canary(os.system, command), 4)
    yield pickle.dumps({"a": Canary(eval, f"open({str(file)!r}, 'w')")}, 2)
    yield pickle.dumps({"a": Canary(os.mkdir, str(file))}, 5)
    yield b"(" + call + b"ios\nsystem\n."
    yield b"(cos\nsystem\n" + call + b"o."
    yield b"cos\nsystem\n" + call + b"\x85\x81."
    yield b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\n" + call + b"\x85RtR."
    yield b"\x80\x02ctorch\nos.system\n" + call + b"\x85R."
    yield b"\x80\x02ctorch\nFloatStorage\n" + call + b"\x85R."
    yield (
        b"\x80\x04"
        + text("builtins")
        + text("exec")
        + b"\x93"
        + text(f"open({str(file)!r}, 'w')")
        + b"\x85R."
    )
    yield b"\x80\x02ccollections\nOrderedDict\n(" + text("__class__") + b"tR."
    yield b"\x80\x02ccollections\nOrderedDict\n)R}" + text("__setstate__") + b"cos\nsystem\nsb."


@pytest.mark.parametrize("index", [0, 1, 3])
def test_the_canaries_would_sing(tmp_path, index):
    pickle.loads(list(canaries(tmp_path / "canary"))[index])
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("index", range(13))
def test_nothing_in_a_pickle_runs(tmp_path, index):
    file = tmp_path / "canary"
    attack = list(canaries(file))[index]
    write_zip(tmp_path / "pytorch_model.bin", attack, {})
    with pytest.raises(FormatError) as caught:
        read_torch_file(tmp_path / "pytorch_model.bin")
    assert not file.exists()
    assert "Traceback" not in str(caught.value)
    legacy = pickle.dumps(LEGACY_MAGIC, 2) + pickle.dumps(1001, 2) + attack
    (tmp_path / "pytorch_model.bin").write_bytes(legacy)
    with pytest.raises(FormatError):
        read_torch_file(tmp_path / "pytorch_model.bin")
    assert not file.exists()


ARRAY = np.zeros((2, 3), np.float32)
LIES = {
    "past the storage": {"shape": (3, 3)},
    "far offset": {"offset": 2**31 - 1},
    "negative offset": {"offset": -1},
    "negative stride": {"strides": (-3, 1)},
    "long stride": {"strides": (2**31 - 1, 1)},
    "fewer strides": {"strides": (3,)},
    "storage longer than the file": {"count": 100, "shape": (10, 10), "strides": (10, 1)},
    "unknown type": {"kind": b"QInt8Storage"},
    "nine axes": {"shape": (1,) * 9, "strides": (1,) * 9},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_tensor_that_lies_is_refused(tmp_path, lie):
    path = write_zip(
        tmp_path / "x.bin", state({"a": pickled_tensor("0", ARRAY, **LIES[lie])}), {"0": ARRAY}
    )
    with pytest.raises(FormatError):
        read_torch_file(path)


def test_a_view_that_repeats_what_little_there_is_is_refused(tmp_path):
    lie = pickled_tensor("0", np.ones(4, np.float32), shape=(1 << 30, 4), strides=(0, 1))
    path = write_zip(tmp_path / "model.bin", state({"a": lie}), {"0": np.ones(4, np.float32)})
    with pytest.raises(FormatError, match="it repeats what little it holds"):
        read_torch_file(path)
    whole = pickled_tensor("0", np.ones(4, np.float32), shape=(100, 4), strides=(0, 1))
    write_zip(tmp_path / "pytorch_model.bin", state({"a": whole}), {"0": np.ones(4, np.float32)})
    assert np.array_equal(read_all(tmp_path)["a"], np.ones((100, 4)))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.bin"
    good = state({"a": pickled_tensor("0", ARRAY)})
    for broken in (
        lambda: write_zip(path, good, {}),
        lambda: write_zip(path, good, {"0": ARRAY}, method=zipfile.ZIP_DEFLATED),
        lambda: write_zip(path, good, {"0": ARRAY}, byteorder="big"),
        lambda: write_zip(path, b"\x80\x02]q\x00.", {}),
        lambda: write_zip(path, state({"a": number(7)}), {}),
        lambda: write_zip(path, b"\x80\x02}(" + number(7) + number(7) + b"u.", {}),
        lambda: write_zip(path, b"", {}),
        lambda: zipfile.ZipFile(path, "w").close(),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"PK\x03\x04"),
        lambda: path.write_bytes(pickle.dumps({"a": 1}, 2)),
    ):
        broken()
        with pytest.raises(FormatError):
            read_torch_file(path)


def test_endless_pickles_end():
    with pytest.raises(FormatError, match="instructions"):
        read_pickle(BytesIO(b"\x80\x02" + b"}" * (MAX_INSTRUCTIONS + 5)), "it")
    floods = [b"\x80\x02" + b"]\x94" * MAX_INSTRUCTIONS]
    floods += [
        b"\x8d" + b"\xff" * 8,
        b"X\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\x7f",
        b"I" + b"9" * 10**6 + b"\n.",
    ]
    floods += [b"0" * 100, b"t"]
    for flood in floods:
        tracemalloc.start()
        try:
            with pytest.raises(FormatError):
                read_pickle(BytesIO(flood), "it")
            assert tracemalloc.get_traced_memory()[1] < 64 << 20
        finally:
            tracemalloc.stop()


OPCODES = [code.code.encode("latin-1") for code in pickletools.opcodes]


@settings(max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(OPCODES), st.binary(max_size=4), st.just(pickled_tensor("0", ARRAY))
        ),
        max_size=25,
    )
)
def test_any_pickle_is_read_or_refused(parts):
    with suppress(EdgeLLMError):
        read_pickle(BytesIO(b"".join(parts)), "it")


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, data):
    path = write_arrays(tmp_path_factory.mktemp("damaged") / "x.bin", {"a": ARRAY, "b": ARRAY})
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(
        raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    )
    try:
        tensors = read_torch_file(path)
    except EdgeLLMError:
        return
    for tensor in tensors.values():
        assert 0 <= tensor.info.offset <= path.stat().st_size


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
def test_files_by_torch_itself(tmp_path, zipped):
    import torch

    base = torch.randn(6, 8)
    layer = torch.nn.Linear(8, 4)
    saved = {
        "half": torch.randn(4, 4).half().t(),
        "parameter": torch.nn.Parameter(torch.randn(7)),
        "view": base[2:4],
        "whole": base,
        "whole numbers": torch.arange(5),
        "expanded": torch.zeros(1).expand(4, 5),
        "empty": torch.zeros(0, 3),
        "large": torch.randn(300, 300),
    }
    for content in (saved, layer.state_dict()):
        torch.save(content, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        names = {name for name, tensor in content.items() if tensor.numel()}
        found = read_all(tmp_path)
        for name in names:
            assert np.array_equal(found[name], content[name].detach().numpy()), name
        assert HuggingFaceSource(tmp_path).tensors.keys() == content.keys()
