"""Machines and links are measured, and said without names, addresses and paths."""

import json
from pathlib import Path

import pytest
from support.clusters import members, parts_in

from edgellm.console.diagnosis_view import peers_lines
from edgellm.diagnostics.peers import MeasuredPeer, examine_peers, masked
from edgellm.distributed.links.addresses import Address
from edgellm.distributed.links.machines import Machine
from edgellm.distributed.supply.sample_model import sample_model
from edgellm.distributed.supply.told_model import checkpoint_from

JANE = Machine("janes-mac", Address("192.168.1.17", 47110), "janes-mac")


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (
            "machine janes-mac cannot be reached at 192.168.1.17:47110: refused",
            "machine 2 cannot be reached at its address: refused",
        ),
        ("machine janes-mac: /Users/jane/m has 3 GB free", "machine 2: a path has 3 GB free"),
        ("no ~/models/x, and 4 MB/s", "no a path, and 4 MB/s"),
        ("machine 192.168.1.17:47110 is gone", "machine 2 is gone"),
    ],
)
def test_nothing_personal_is_left(said, left):
    assert masked(said, JANE, 2) == left


def test_the_block_has_a_line_a_machine_and_a_line_a_link():
    this = MeasuredPeer(1, chip="Apple M2", system="macOS 15.1", memory=16 << 30, weights=9e10)
    other = MeasuredPeer(2, chip="Apple M1", system="macOS 14.0", memory=8 << 30, disk=2e9)
    other.versions, other.trips, other.there, other.back = {"mlx": "1.2"}, {8: 3e-4}, 1e8, 2e8
    lines = peers_lines([this, other, MeasuredPeer(3, error="machine 3 is not there")])
    assert lines == [
        "machine 1: Apple M2, 17.2 GB, macOS 15.1, disk not measured, weights 90.0 GB/s",
        "machine 2: Apple M1, 8.59 GB, macOS 14.0, mlx 1.2, disk 2.00 GB/s",
        "machine 3: machine 3 is not there",
        "link 1-2: there and back 300 us for 8 bytes; 100 MB/s there, 200 MB/s back",
    ]


def test_the_sample_is_a_model_of_7b_shape():
    checkpoint = checkpoint_from(sample_model(), Path())
    assert checkpoint.usual_bits == 4
    # 4.5 bits a weight: scales and biases count
    assert checkpoint.layers[0].nbytes == pytest.approx(202_375_168 * 4.5 / 8, rel=1e-3)


@pytest.mark.slow
def test_machines_that_are_there_and_one_that_is_not(tmp_path):
    with members(None, tmp_path, ["500MB"], held=parts_in(tmp_path / "kept")) as hosts:
        listed = json.loads(hosts.read_text())
        hosts.write_text(json.dumps([*listed, ["127.0.0.1:9"]]))
        this, there, gone = examine_peers(hosts, None)
    assert this.weights == pytest.approx(there.weights, rel=0.9)
    assert there.disk > 0
    assert there.there > 0
    assert there.back > 0
    assert sorted(there.trips.values())[0] > 0
    assert "cannot be reached" in gone.error
    assert "127.0.0.1" not in json.dumps([peer.as_dict() for peer in (this, there, gone)])
