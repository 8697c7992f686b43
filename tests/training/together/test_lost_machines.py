"""A machine that dies, stops or is cut off ends a run by its name, and what was saved goes on."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import pytest
from support.clusters import members, write_hosts
from support.member_processes import MemberProcess, one_member
from support.processes import started
from support.relay import Relay
from support.task_files import write_rows
from support.training import LORA, in_four_bits, numbers_of

from edgellm.checkpoint.safetensors_file import read_header
from edgellm.distributed.links.machines import read_machines, secret_file
from edgellm.distributed.links.secret import new_secret
from edgellm.errors import MachineError
from edgellm.settings import LoadSettings
from edgellm.training.run.settings import TrainSettings
from edgellm.training.run.train import TrainRequest, open_run
from edgellm.training.together.session import TrainingSession

SECONDS = 10

WORDS = ("dog", "cat", "ball", "sun", "sea", "moon")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return in_four_bits(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    write_rows(path, [{"prompt": f"Say {word}.", "completion": word} for word in WORDS])
    return path


def request(folder, data, out, hosts, **how):
    return TrainRequest(
        **how,
        model=str(folder),
        data=data,
        folder=out,
        settings=TrainSettings(lora=LORA, batch=4, steps=100_000, save_every=2),
        load=LoadSettings(activations="float", memory="1GB", threads=1, machines=hosts),
    )


def missed(asked, port, take_away):
    """A run whose machine is taken away amid its steps; it ends in time, and goes on alone."""
    with open_run(asked) as run:
        steps = run.run()
        for _ in range(5):
            next(steps)
        take_away()
        begun = time.monotonic()
        with pytest.raises(MachineError, match=f"127.0.0.1:{port} is gone") as raised:
            list(steps)
        assert time.monotonic() - begun < SECONDS
        assert "--resume" in raised.value.hint
        saved, expected = run.trainer.step, numbers_of(run)
        run.save()
    alone = dataclasses.replace(asked.load, machines=None)
    with open_run(dataclasses.replace(asked, load=alone, shares=None, resume=True)) as run:
        assert run.trainer.step == saved >= 4
        assert [one.tolist() for one in numbers_of(run)] == [one.tolist() for one in expected]
        assert next(run.run()).step == saved + 1


def test_killed(folder, data, tmp_path):
    with one_member(folder, tmp_path / "hosts") as (member, hosts):
        asked = request(folder, data, tmp_path / "out", hosts)
        missed(asked, member.port, lambda: member.end(signal.SIGKILL))


def test_cut_off_while_it_has_no_share(folder, data, tmp_path):
    with members(folder, tmp_path / "direct", ["1GB"], make_session=TrainingSession) as direct:
        (other,) = read_machines(direct)[1:]
        with Relay(other.address.port) as relay:
            secret = secret_file(direct).read_text().strip()
            hosts = write_hosts(tmp_path / "hosts", [relay.port], secret)
            asked = request(folder, data, tmp_path / "out", hosts, shares=(1e6, 1))
            missed(asked, relay.port, relay.break_off)


@pytest.mark.slow
def test_stopped_while_it_has_no_share(folder, data, tmp_path):
    with one_member(folder, tmp_path / "hosts") as (member, hosts):
        asked = request(folder, data, tmp_path / "out", hosts, shares=(1e6, 1))
        missed(asked, member.port, lambda: member.end(signal.SIGSTOP))


@pytest.mark.slow
def test_stopped(folder, data, tmp_path):
    with one_member(folder, tmp_path / "hosts") as (member, hosts):
        asked = request(folder, data, tmp_path / "out", hosts)
        missed(asked, member.port, lambda: member.end(signal.SIGSTOP))


@pytest.mark.slow
def test_cable_cut(folder, data, tmp_path):
    secret = new_secret()
    with MemberProcess(folder, secret) as member, Relay(member.port) as relay:
        hosts = write_hosts(tmp_path / "hosts", [relay.port], secret)
        missed(request(folder, data, tmp_path / "out", hosts), relay.port, relay.cut)
        ends = time.monotonic() + SECONDS
        while "is gone" not in member.said and time.monotonic() < ends:
            time.sleep(0.1)
        assert "is gone" in member.said, "the other side finds it out, too"
        relay.mend()
        again = write_hosts(tmp_path / "again", [member.port], secret)
        with open_run(request(folder, data, tmp_path / "next", again)) as run:
            assert sum(next(run.run()).shares.values()) > 0, "and serves the next run"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["other killed", "interrupted", "killed"])
def test_the_command_ends_with_an_error_or_saves_and_goes_on(folder, data, tmp_path, how):
    out = tmp_path / "out"
    words = ["train", str(folder), str(data), str(out), "--batch", "4", "--steps", "100000"]
    words += ["--answers", "0", "--save-every", "2", "--threads", "1", "--memory", "1GB"]
    words = [sys.executable, "-m", "edgellm", *words, "--machines"]
    with (
        one_member(folder, tmp_path / "hosts") as (member, hosts),
        started([*words, hosts], stderr=subprocess.PIPE, text=True) as first,
    ):
        command = [*words, str(hosts)]
        log = out / "training.jsonl"
        while first.poll() is None and not (log.exists() and log.read_text().count("\n") > 4):
            time.sleep(0.05)
        if how == "other killed":
            member.end(signal.SIGKILL)
        else:
            first.send_signal(signal.SIGINT if how == "interrupted" else signal.SIGKILL)
        said = first.communicate(timeout=SECONDS + 20)[1]
        assert "tokens: here " in said
        if how == "other killed":
            assert first.returncode == 1
            assert f"127.0.0.1:{member.port} is gone" in said
            assert "hint: " in said
            return
        if how == "interrupted":
            assert first.returncode == 130
            assert "saved as it is" in said
        step = json.loads(log.read_text().splitlines()[-1])["step"]
        done = [*command, "--resume"]
        done[done.index("100000")] = str(step + 3)
        assert subprocess.run(done, check=False).returncode == 0, "the other one serves the next"
    assert read_header(out / "adapter_model.safetensors")
    assert json.loads(log.read_text().splitlines()[-1])["step"] == step + 3
