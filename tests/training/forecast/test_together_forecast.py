"""The forecast of training on several machines: shares, memory and time of each."""

import json

import pytest
from support.clusters import members
from support.training import in_four_bits

from edgellm.cli.app import main
from edgellm.distributed.supply.part_folder import PartFolder
from edgellm.training.together.session import TrainingSession


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return in_four_bits(tmp_path_factory.mktemp("model"))


def test_each_machine_has_a_share_and_the_last_one_says_the_time(folder, tmp_path, capsys):
    options = ["--train", "--batch", "4", "--max-tokens", "32", "--memory", "1GB"]
    # the other one has not got the model
    session = {"make_session": TrainingSession, "held": PartFolder}
    with members(None, tmp_path, ["500MB"], **session) as hosts:
        words = ["plan", str(folder), *options, "--machines", str(hosts)]
        assert main([*words, "--json"]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert main([*words, "--sim-ram", "8GB"]) == 2
        assert main([*words, "--full"]) == 2
    here, other = plan["machines"]
    assert here["name"] == "here"
    assert here["tokens"] + other["tokens"] == plan["step_tokens"] == 4 * 32
    assert (here["budget"], other["budget"]) == (1_000_000_000, 500_000_000)
    assert here["total_bytes"] > other["total_bytes"], "it takes the steps"
    assert plan["seconds_a_step"] == max(here["seconds"], other["seconds"])
    assert other["seconds"] > other["trip_seconds"] > 0
    assert other["name"] in shown
    assert "to each machine and back" in shown
