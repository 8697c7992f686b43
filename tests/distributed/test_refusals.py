"""Who is not of the cluster gets nothing, and what is not alike is refused by name."""

import json
import os
import shutil
import socket
from contextlib import closing, suppress

import mlx.core as mx
import pytest
from support.clusters import members, part_budget, write_hosts
from support.paged import CONTEXT, PROMPT

import edgellm
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.distributed.cluster import open_cluster
from edgellm.distributed.links.addresses import Address
from edgellm.distributed.links.machines import secret_file
from edgellm.distributed.links.secret import new_secret
from edgellm.distributed.members.member import Member
from edgellm.distributed.parts import digests
from edgellm.distributed.parts.cut import cut_layers
from edgellm.settings import LoadSettings


def load(folder, hosts, **keywords):
    return edgellm.load(folder, memory="500MB", threads=1, context=96, machines=hosts, **keywords)


@pytest.fixture
def folder(tiny_folder):
    return tiny_folder("llama-3.2")


def refused(folder, hosts, words, kind=edgellm.MachineError, **keywords):
    with pytest.raises(kind, match=words) as raised:
        load(folder, hosts, **keywords)
    assert raised.value.hint
    return raised.value


def test_another_secret(folder, tmp_path):
    with members(folder, tmp_path, ["500MB"]) as hosts:
        right = secret_file(hosts).read_text()
        secret_file(hosts).write_text(f"{new_secret()}\n")
        refused(folder, hosts, "another secret")
        secret_file(hosts).write_text(right)
        with load(folder, hosts) as llm:
            assert llm.generate(PROMPT, max_tokens=2).text


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_one_byte_of_a_file(folder, tmp_path, file):
    other = tmp_path / "copy"
    shutil.copytree(folder, other)
    data = bytearray((other / file).read_bytes())
    data[-2] ^= 1 if file.endswith("safetensors") else 0
    if file.endswith("json"):
        data += b"\n"
    (other / file).write_bytes(data)
    with members(other, tmp_path / "hosts", ["500MB"]) as hosts:
        refused(folder, hosts, f"{file} on machine 127.0.0.1:.* is another one")


def test_another_version(folder, tmp_path, monkeypatch):
    with members(folder, tmp_path, ["500MB"]) as hosts:
        monkeypatch.setattr("edgellm.distributed.gathered.versions", lambda: {"edgellm": "0.0.9"})
        refused(folder, hosts, "has edgellm .*, and this one has 0.0.9")


def test_two_clusters_on_one_machine(folder, tmp_path):
    with members(folder, tmp_path, ["500MB"]) as hosts:
        with load(folder, hosts) as llm:
            refused(folder, hosts, "computes for another cluster")
            assert llm.generate(PROMPT, max_tokens=2).text
        with load(folder, hosts) as llm:
            assert llm.generate(PROMPT, max_tokens=2).text


def test_a_port_that_is_taken(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(edgellm.MachineError, match="cannot listen") as raised:
            Member(read_checkpoint(folder), LoadSettings(), place, b"x" * 43, say=print)
    assert "--port" in raised.value.hint


def test_nobody_there_and_somebody_else_there(folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    refused(folder, write_hosts(tmp_path / "a", [port], new_secret()), "cannot be reached")
    with members(folder, tmp_path / "b", ["500MB"]) as hosts:
        port = int(json.loads(hosts.read_text())[1][0].rpartition(":")[2])
        strangers = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 100, b"edgellm cluster 1\n"]
        for words in (*strangers, b""):
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.settimeout(20)
                heard = b""
                with suppress(ConnectionError):
                    stranger.sendall(words)
                    with suppress(OSError):  # the machine may have hung up before
                        stranger.shutdown(socket.SHUT_WR)
                    while part := stranger.recv(1000):
                        heard += part
            # without a greeting there is no answer, and never one that proves anything
            assert len(heard) in {0, len(b"edgellm cluster 1\n") + 32}
        with load(folder, hosts) as llm:
            assert llm.generate(PROMPT, max_tokens=2).text


def test_a_file_that_is_missing_on_one_machine(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with members(copy, tmp_path / "hosts", ["500MB"]) as hosts:
        (copy / "model.safetensors").unlink()
        refused(folder, hosts, "machine 127.0.0.1:.* is gone", edgellm.ReadError)
        shutil.copy2(folder / "model.safetensors", copy)
        with load(folder, hosts) as llm:
            assert llm.generate(PROMPT, max_tokens=2).text


def test_a_disk_that_fails_amid_a_text(tiny_folder, tmp_path):
    folder, copy = tiny_folder("llama-3.2", config={"num_hidden_layers": 8}), tmp_path / "copy"
    shutil.copytree(folder, copy)
    own, other = part_budget(folder, 4, 1, outer=True), part_budget(folder, 4, 1)
    with members(copy, tmp_path / "hosts", [other]) as hosts:
        settings = LoadSettings(memory=own, threads=1, context=CONTEXT, machines=hosts)
        cut = cut_layers([4, 4], in_turns=True)
        opened = open_cluster(read_checkpoint(folder), settings, cut=cut)
        with closing(opened.model), closing(opened.reader):
            caches = opened.caches.make(capacity=CONTEXT, reserve=CONTEXT)
            mx.eval(opened.model(mx.array([PROMPT]), caches))
            os.truncate(copy / "model.safetensors", 1000)

            def go_on():
                for token in range(9):  # what the ring has read already is still there
                    mx.eval(opened.model(mx.array([[5 + token]]), caches))

            with pytest.raises(edgellm.ReadError, match=r"machine 127\.0\.0\.1"):
                go_on()


def test_a_machine_with_too_little_memory(folder, tmp_path):
    with members(folder, tmp_path, ["20KB"]) as hosts:
        refused(folder, hosts, "the budget is 20", edgellm.MemoryBudgetError)


@pytest.mark.parametrize(("setting", "value"), [("adapter", "."), ("machines", "nothing.json")])
def test_settings_that_one_machine_alone_has(folder, tmp_path, setting, value):
    hosts = write_hosts(tmp_path, [1], new_secret())
    with pytest.raises(edgellm.EdgeLLMError) as raised:
        edgellm.load(folder, **{"machines": hosts} | {setting: value})
    assert raised.value.hint


def test_digests_are_those_of_the_files_now(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    first = digests.folder_digests(copy)
    assert first == digests.folder_digests(folder)
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    second = digests.folder_digests(copy)
    assert {name for name in first if first[name] != second[name]} == {"config.json"}
