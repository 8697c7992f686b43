"""Machines without the model get their part, and compute what one machine does."""

import hashlib
from contextlib import closing

import mlx.core as mx
import numpy as np
import pytest
from support.clusters import answers, answers_of_one, members, parts_in, require_equal
from support.disk_limits import file_size_limit, open_to_others
from support.paged import CONTEXT, PROMPT

import edgellm
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.converters import convert
from edgellm.distributed.cluster import open_cluster
from edgellm.distributed.parts.cut import cut_layers
from edgellm.distributed.supply.arriving import ArrivingFile, arrived_bytes
from edgellm.distributed.supply.part_folder import PartFolder, part_cache
from edgellm.distributed.supply.told_model import told_of
from edgellm.distributed.supply.written_part import write_part
from edgellm.errors import ConversionError, MachineError
from edgellm.open_llm import open_llm
from edgellm.settings import LoadSettings
from edgellm.tokenizer import Tokenizer

GROUPS = {"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4}
LOAD = {"context": CONTEXT, "threads": 1}
WINDOWS = {"split": "windows"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_folder):
    """A tiny model of four layers in 4 bits."""
    made = tmp_path_factory.mktemp("made") / "4bit"
    convert(tiny_folder("llama-3.2", config=GROUPS, seed=1), made, bits=4)
    return made


@pytest.fixture(scope="module")
def text(folder):
    """What one machine writes."""
    with edgellm.load(folder, memory="500MB", **LOAD) as llm:
        return written(llm)


def written(llm):
    return llm.generate(PROMPT, max_tokens=9).text


@pytest.fixture
def parts(tmp_path):
    """Where what machines are sent lies."""
    return tmp_path / "parts"


def open_with(folder, hosts, sending, **keywords):
    """Load a model; ``sending`` is told what other machines are sent."""
    settings = LoadSettings(memory="500MB", machines=hosts, **LOAD, **WINDOWS | keywords)
    checkpoint = read_checkpoint(folder)
    tokenizer = Tokenizer.from_folder(folder, vocab_size=checkpoint.config.vocab_size)
    return open_llm(checkpoint, tokenizer, settings, sending=sending)


def kept_files(parts):
    return sorted(parts.glob("*/*/*"))


@pytest.mark.parametrize("split", ["windows", "rows"])
def test_machines_without_the_model_equal_one(folder, tmp_path, split, parts):
    one, sent = answers_of_one(folder, **LOAD), []
    with members(None, tmp_path / "hosts", ["500MB"] * 2, held=parts_in(parts)) as hosts:
        with open_with(folder, hosts, lambda *step: sent.append(step), split=split) as llm:
            require_equal(one, answers(llm))
        assert len({name for name, done, total in sent if done == total}) == 2
        layers = {file.name[:17] for file in kept_files(parts)}
        # of windows the first machine keeps its own layer; of rows each has some of all
        assert len(layers) == (3 if split == "windows" else 4)
        assert not open_to_others(parts)
        sent.clear()
        with open_with(folder, hosts, lambda *step: sent.append(step), split=split) as llm:
            assert llm.generate(PROMPT, max_tokens=2).text
        assert not sent


def test_layers_that_are_not_adjacent(folder, tmp_path, parts):
    with members(None, tmp_path / "hosts", ["500MB"], held=parts_in(parts)) as hosts:
        settings = LoadSettings(memory="500MB", machines=hosts, **LOAD)
        opened = open_cluster(
            read_checkpoint(folder), settings, cut=cut_layers([2, 2], in_turns=True)
        )
        with closing(opened.model), closing(opened.reader):
            logits = opened.model(mx.array([PROMPT]), opened.caches.make(capacity=99, reserve=99))
            with edgellm.load(folder, memory="500MB", **LOAD) as llm:
                assert np.array_equal(np.array(logits)[0, -1], np.array(llm.logits(PROMPT))[-1])
        assert [file.name[-17:] for file in kept_files(parts)] == [
            "00001.safetensors",
            "00003.safetensors",
        ]


def test_a_part_that_was_cut_off_goes_on(folder, tmp_path, text, parts):
    def cut_off(_name, done, total):
        lacked.append(total)
        if done > total // 2 and len(lacked) > 1:
            raise KeyboardInterrupt

    lacked = []
    with members(None, tmp_path / "hosts", ["500MB"], held=parts_in(parts)) as hosts:
        with pytest.raises(KeyboardInterrupt):
            open_with(folder, hosts, cut_off)
        files = kept_files(parts)
        # half a layer, as a connection leaves it that ends amid one
        part = files[-1].read_bytes()
        files[-1].unlink()
        arriving = ArrivingFile(files[-1], 0)
        arriving.append(memoryview(part[: len(part) // 2]))
        arriving.close()
        assert arrived_bytes(files[-1]) == len(part) // 2
        sent = []
        with open_with(folder, hosts, lambda *step: sent.append(step)) as llm:
            assert written(llm) == text
        whole = sum(file.stat().st_size for file in kept_files(parts))
        assert sent[-1][2] == whole - sum(file.stat().st_size for file in files[:-1]) - (
            len(part) // 2
        )
        assert kept_files(parts)[: len(files)] == files


def test_a_carried_part_is_used_and_another_byte_is_refused(folder, tmp_path, text, parts):
    carried = tmp_path / "carried"
    write_part(read_checkpoint(folder), carried, [2, 3])
    sent = []
    with members(
        None,
        tmp_path / "hosts",
        ["500MB"],
        held=lambda: PartFolder(carried, cache=parts / "machine"),
    ) as hosts:
        with open_with(folder, hosts, lambda *step: sent.append(step)) as llm:
            assert written(llm) == text
        assert not sent
        assert not kept_files(parts)
        file = carried / "model-layer-00003.safetensors"
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(data)
        with pytest.raises(MachineError, match=r"layer 3 on machine .* is another one") as raised:
            open_with(folder, hosts, None)
        assert file.name in raised.value.hint
        file.unlink()  # it is sent then
        with open_with(folder, hosts, lambda *step: sent.append(step)) as llm:
            assert written(llm) == text
        assert [file.name for file in kept_files(parts)] == [file.name]


def test_a_part_of_another_model_is_refused(folder, tmp_path, tiny_folder, parts):
    carried = tmp_path / "carried"
    write_part(read_checkpoint(tiny_folder("qwen3")), carried, [0])
    with (
        members(
            None,
            tmp_path / "hosts",
            ["500MB"],
            held=lambda: PartFolder(carried, cache=parts / "machine"),
        ) as hosts,
        pytest.raises(MachineError, match="the part in carried is of another model") as raised,
    ):
        open_with(folder, hosts, None)
    assert raised.value.hint


def test_a_kept_part_that_was_changed_is_sent_anew(folder, tmp_path, text, parts):
    with members(None, tmp_path / "hosts", ["500MB"], held=parts_in(parts)) as hosts:
        open_with(folder, hosts, None).close()
        file = kept_files(parts)[0]
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(data)
        sent = []
        with open_with(folder, hosts, lambda *step: sent.append(step)) as llm:
            assert written(llm) == text
        assert sent[-1][2] == len(data)


def test_a_disk_that_is_full(folder, tmp_path, parts):
    with members(None, tmp_path / "hosts", ["500MB"], held=parts_in(parts)) as hosts:
        with (
            file_size_limit(20_000),
            pytest.raises(
                ConversionError, match=r"machine .*: no space left for .*layer"
            ) as raised,
        ):
            open_with(folder, hosts, None)
        assert raised.value.hint
        with open_with(folder, hosts, None) as llm:
            assert llm.generate(PROMPT, max_tokens=2).text


def test_what_arrives_damaged_is_removed(tmp_path):
    arriving = ArrivingFile(tmp_path / "layer", 0)
    arriving.append(memoryview(b"numbers"))
    with pytest.raises(MachineError, match="damaged"):
        arriving.finish(hashlib.sha256(b"number5").hexdigest())
    arriving.close()
    assert not list(tmp_path.iterdir())


def test_a_file_has_one_writer(tmp_path):
    first = ArrivingFile(tmp_path / "layer", 0)
    with pytest.raises(ConversionError, match="another process") as raised:
        ArrivingFile(tmp_path / "layer", 0)
    assert raised.value.hint
    first.append(memoryview(b"one"))
    first.finish(hashlib.sha256(b"one").hexdigest())
    first.close()
    assert (tmp_path / "layer").read_bytes() == b"one"


def test_a_folder_that_is_no_part_is_no_part(tmp_path):
    with pytest.raises(edgellm.ReadError):
        PartFolder(tmp_path)


def test_what_the_first_machine_may_not_ask(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    held, nothing = PartFolder(), memoryview(b"")
    with pytest.raises(MachineError, match="which model"):
        held.answer({"ask": "held", "layers": [0]}, nothing)
    with pytest.raises(MachineError, match="which model"):
        _ = held.checkpoint
    held.answer({"ask": "model", "model": told_of(read_checkpoint(folder))}, nothing)
    for layer in (-1, 5):  # behind the last one is what is outside the layers
        with pytest.raises(MachineError, match="the model has not"):
            held.answer({"ask": "held", "layers": [layer]}, nothing)
    with pytest.raises(MachineError, match="nobody here knows"):
        held.answer({"ask": "../../x"}, nothing)
    with pytest.raises(ConversionError, match="its part needs") as raised:
        held.answer({"ask": "room", "bytes": 1 << 60}, nothing)
    assert raised.value.hint
    head = {"ask": "take", "layers": [0], "at": 0, "sha256": ""}
    with pytest.raises(MachineError, match="more was sent"):
        held.answer(head, memoryview(bytes(1 << 20)))
    with pytest.raises(MachineError, match="shorter than it was"):
        held.answer({**head, "at": 99}, memoryview(b"x"))
    held.close()
    kept = list(part_cache().glob("*/*"))
    assert kept
    assert all(file.suffix != ".safetensors" for file in kept)
