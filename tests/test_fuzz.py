"""A sample of the damaged input that ``python tests/fuzz_doors.py`` throws at every door."""

import functools
import tempfile
from pathlib import Path

import pytest
from fuzz.door import DifferenceError, Door
from fuzz.doors import DOORS
from fuzz.harness import FAULTS, load_case, run_case, run_cases, warm_up
from support.paths import ROOT

FIRST = 1_000_000_000
"""The number of the first case: none that a long run has had."""

CASES_A_SHARE = 2
REGRESSIONS = sorted((ROOT / "tests" / "regressions").glob("*/*.json"))


@functools.cache
def door_of(name):
    folder = tempfile.TemporaryDirectory(prefix="edgellm-fuzz-")
    door = DOORS[name](Path(folder.name) / "case")
    door.temporary = folder  # goes with the door
    warm_up(door)
    return door


@pytest.mark.parametrize("name", DOORS)
def test_damaged_input_ends_well_or_in_our_error(name):
    door = door_of(name)
    counts, found = run_cases(door, range(FIRST, FIRST + CASES_A_SHARE * door.share))
    assert not found
    assert not any(counts[fault] for fault in FAULTS)
    assert counts["refused"] > counts["accepted"] / 9


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_once_failed_does_not_fail_again(path):
    name, files = load_case(path)
    _, faults, _ = run_case(door_of(name), files)
    assert not faults


class BrokenDoor(Door):
    """Has the fault that its case names."""

    name = "broken"

    def damage(self, random):
        return {"fault": random.choice((b"traceback", b"difference"))}

    def open(self, files):
        if files["fault"] == b"traceback":
            raise KeyError("x")
        if files["fault"] == b"large":
            bytearray(b"x") * 300_000_000
        return files["fault"]

    def check(self, opened, files):
        if opened == b"difference":
            raise DifferenceError("two numbers")
        return True


def test_the_harness_finds_what_it_looks_for(tmp_path):
    door = BrokenDoor(tmp_path / "door")
    counts, found = run_cases(door, range(30), keep=tmp_path / "kept")
    assert counts["traceback"] + counts["difference"] == 30
    assert {one["fault"] for one in found} == {"traceback", "difference"}
    for path in (tmp_path / "kept").iterdir():
        _, files = load_case(path)
        _, faults, _ = run_case(door, files)
        assert list(faults) == [files["fault"].decode()]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak stays what it was")
def test_the_harness_finds_what_takes_much_memory(tmp_path):
    door = BrokenDoor(tmp_path / "door")
    warm_up(door)
    _, faults, _ = run_case(door, {"fault": b"large"})
    assert list(faults) == ["large"]
