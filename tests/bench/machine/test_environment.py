"""The environment of a measurement: what is known of the machine, as plain data."""

import json
import string

from support.paths import ROOT

from edgellm.bench.machine.environment import commit, environment, power_state


def test_the_environment_is_plain_data():
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert {"chip", "cores", "memory_bytes", "python", "packages", "time"} <= found.keys()
    assert found["packages"]["edgellm"]


def test_power_and_commit_are_told_where_they_are_known(tmp_path):
    nothing = power_state(tmp_path / "none", tmp_path / "none")
    assert nothing["governor"] is None
    (tmp_path / "BAT0").mkdir()
    (tmp_path / "BAT0" / "status").write_text("Discharging\n")
    (tmp_path / "governor").write_text("powersave\n")
    found = power_state(tmp_path, tmp_path / "governor")
    assert found["governor"] == "powersave"
    if nothing["source"] is None:  # not a Mac, which asks elsewhere
        assert found["source"] == "battery"
        (tmp_path / "AC").mkdir()
        (tmp_path / "AC" / "online").write_text("1\n")
        assert power_state(tmp_path, tmp_path / "governor")["source"] == "AC"
    assert commit(tmp_path) is None
    assert set(string.hexdigits) >= set((commit(ROOT / "bench") or "0").rstrip("+"))
