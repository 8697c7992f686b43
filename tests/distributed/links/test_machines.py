"""Files of machines in the forms that there are, and the secret beside them."""

import json
import os

import pytest

from edgellm.distributed.links.addresses import DEFAULT_PORT, Address, parse_address
from edgellm.distributed.links.machines import read_machines
from edgellm.distributed.links.secret import new_secret, read_secret, write_secret
from edgellm.errors import ConfigError

MLX_LAUNCH = [
    {"ssh": "first", "ips": ["10.0.0.1"], "rdma": [None, "rdma_en5"]},
    {"ssh": "user@second", "ips": ["10.0.0.2", "10.1.0.2"], "rdma": ["rdma_en5", None]},
]


def written(path, document):
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_the_form_of_mlx_launch(tmp_path):
    for document in (MLX_LAUNCH, {"backend": "jaccl", "hosts": MLX_LAUNCH}):
        first, second = read_machines(written(tmp_path / "hosts.json", document))
        assert (first.name, first.address) == ("first", Address("10.0.0.1", DEFAULT_PORT))
        assert (second.ssh, second.address.host) == ("user@second", "10.0.0.2")


def test_keys_of_other_programs_and_comments_are_passed_over(tmp_path):
    document = {
        "backend": "jaccl",
        "envs": ["MLX_METAL_FAST_SYNCH=1"],
        "_comment": "of mlx.distributed_config",
        "hosts": [
            # one end of two cables
            {"ssh": "first", "ips": ["10.0.0.1"], "rdma": [None, ["rdma_en3", "rdma_en5"]]},
            {"hostname": "mac2", "node_id": "m5", "ips": ["10.0.0.2"], "// by hand": True},
        ],
    }
    machines = read_machines(written(tmp_path / "hosts.json", document))
    assert [machine.name for machine in machines] == ["first", "10.0.0.2:47110"]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        *(("adress", "ips"), ("IPs", "ips"), ("ip", "ips"), ("memmory", "memory")),
        *(("Memory", "memory"), ("prot", "port"), ("SSH", "ssh"), ("name", "ssh")),
    ],
)
def test_a_key_that_is_written_wrong_is_told_with_what_is_meant(tmp_path, key, meant):
    machine = {"ips": ["10.0.0.2"], key: "8GB"}
    with pytest.raises(ConfigError, match=f"machine 2: it has the key '{key}'") as raised:
        read_machines(written(tmp_path / "hosts.json", [["10.0.0.1"], machine]))
    assert raised.value.hint == f"did you mean {meant}?"


def test_a_key_that_nothing_is_called_is_told_with_those_that_there_are(tmp_path):
    machines = [["10.0.0.1"], {"ips": ["10.0.0.2"], "colour": "red"}]
    with pytest.raises(ConfigError, match="'colour'") as raised:
        read_machines(written(tmp_path / "hosts.json", machines))
    assert "ssh, ips, port, memory" in raised.value.hint
    with pytest.raises(ConfigError, match="'machines'") as raised:
        read_machines(written(tmp_path / "hosts.json", {"machines": [["10.0.0.1"], ["10.0.0.2"]]}))
    assert raised.value.hint == "did you mean hosts?"


def test_a_file_for_rdma_alone_is_told_that_each_machine_needs_an_address(tmp_path):
    machines = [MLX_LAUNCH[0], {**MLX_LAUNCH[1], "ips": []}]
    with pytest.raises(ConfigError, match="machine 2: it has no address") as raised:
        read_machines(written(tmp_path / "hosts.json", machines))
    assert "each one's" in raised.value.hint


def test_the_form_of_the_ring(tmp_path):
    document = [["10.0.0.1:5000", "10.0.0.1:5001"], ["10.0.0.2:5000"], ["[fd00::3]:5000"]]
    machines = read_machines(written(tmp_path / "hosts.json", document))
    assert [str(machine.address) for machine in machines] == [
        "10.0.0.1:5000",
        "10.0.0.2:5000",
        "[fd00::3]:5000",
    ]
    assert machines[1].name == "10.0.0.2:5000"
    assert machines[1].ssh is None


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[",
        "[" * 100_000,
        {},
        [],
        [["10.0.0.1"]],
        [["10.0.0.1"], 3],
        [["10.0.0.1"], {"ssh": "x"}],
        [["10.0.0.1"], {"ips": []}],
        [["10.0.0.1"], {"ips": [3]}],
        [["10.0.0.1"], {"ips": ["10.0.0.2"], "port": "x"}],
        [["10.0.0.1"], {"ips": ["10.0.0.2"], "ssh": "-oProxyCommand=x"}],
        [["10.0.0.1"], {"ips": ["10.0.0.2"], "ssh": "a b"}],
        [["10.0.0.1"], ["10.0.0.2"], ["10.0.0.2"]],
        [["10.0.0.1"], ["somewhere.example"]],
        [["10.0.0.1"], ["8.8.8.8"]],
        [["10.0.0.1"]] * 65,
        [[f"10.0.{i // 250}.{i % 250 + 1}"] for i in range(5000)],
        *(
            [["10.0.0.1"], {"ips": ["10.0.0.2"], "port": port}]
            for port in (0, -1, 65536, True, None, 1.5)
        ),
        *(
            [["10.0.0.1"], {"ips": ["10.0.0.2"], "ssh": ssh}]
            for ssh in ("", "a\x1b[31mb", "a\0b", "a\ud800b", "a\tb", "a" * 5000)
        ),
        *(
            [["10.0.0.1"], {"ips": ["10.0.0.2"], "memory": memory}]
            for memory in ("lots", "\x1b[2J", "", "8", "0%", "120%", 8)
        ),
    ],
)
def test_what_names_no_machines(tmp_path, document):
    with pytest.raises(ConfigError) as raised:
        read_machines(written(tmp_path / "hosts.json", document))
    assert raised.value.hint


@pytest.mark.parametrize(
    "text",
    [
        *("0.0.0.0", "::", "8.8.8.8", "2001:4860:4860::8888", "224.0.0.1", "localhost", ""),
        *("10.0.0.1:0", "10.0.0.1:70000", "10.0.0.1:x", "300.1.1.1"),
        # IPv6's way of writing IPv4: the first listens on all networks
        *("::ffff:0.0.0.0", "::ffff:8.8.8.8", "::ffff:224.0.0.1", "[::ffff:0:0]:5000"),
        *("255.255.255.255", "240.0.0.1", "fe80::1%\x1b[31m", "fe80::1%"),
        *("fe80::1", "[fe80::1]:5000"),  # in which network?
    ],
)
def test_addresses_that_are_refused(text):
    with pytest.raises(ConfigError) as raised:
        parse_address(text)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1", "127.0.0.1", DEFAULT_PORT),
        ("192.168.1.2:5000", "192.168.1.2", 5000),
        ("100.100.1.2", "100.100.1.2", DEFAULT_PORT),
        ("169.254.3.4", "169.254.3.4", DEFAULT_PORT),
        ("::1", "::1", DEFAULT_PORT),
        ("[fe80::1%en0]", "fe80::1%en0", DEFAULT_PORT),
        ("[fd00::1]:5000", "fd00::1", 5000),
        ("fe80::1%eth0", "fe80::1%eth0", DEFAULT_PORT),
        ("fe80::1%enp3s0.7", "fe80::1%enp3s0.7", DEFAULT_PORT),
        ("[::ffff:192.168.1.2]:5000", "192.168.1.2", 5000),
    ],
)
def test_addresses_that_are_private(text, host, port):
    assert parse_address(text) == Address(host, port)


def test_machines_of_one_ssh_name_have_names_of_their_own(tmp_path):
    document = [{"ssh": "one", "ips": ["10.0.0.1"], "port": port} for port in (47110, 47111, 47112)]
    machines = read_machines(written(tmp_path / "hosts.json", document))
    assert len({machine.name for machine in machines}) == 3
    assert {machine.ssh for machine in machines} == {"one"}


def test_a_secret_is_its_owners_alone(tmp_path):
    path, secret = tmp_path / "secret", new_secret()
    write_secret(path, secret)
    assert read_secret(path) == secret.encode()
    assert path.stat().st_mode & 0o777 == 0o600
    os.chmod(path, 0o644)
    with pytest.raises(ConfigError, match="others can read"):
        read_secret(path)
    os.chmod(path, 0o600)
    path.write_text("short\n")
    with pytest.raises(ConfigError, match="5 characters"):
        read_secret(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret(tmp_path / "none")
