"""Energy that the machine tells, and none where it tells nothing."""

import stat
import time

import pytest

from edgellm.bench.machine.energy import (
    PowerMeter,
    RAPLMeter,
    apple_milliwatts,
    find_meter,
    nvidia_meter,
)


def zone(root, number, name, energy, limit=1000):
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")
    return folder / "energy_uj"


def test_counters_of_packages_are_added_and_followed_past_their_end(tmp_path):
    first, second = zone(tmp_path, 0, "package-0", 900), zone(tmp_path, 1, "package-1", 0)
    zone(tmp_path, 2, "core", 5)  # a part of a package, which counts it already
    meter = RAPLMeter(tmp_path)
    assert meter.source == "RAPL: package-0, package-1"
    assert meter.joules() == 0.0
    first.write_text("100\n")
    second.write_text("50\n")
    assert meter.joules() == pytest.approx((200 + 50) / 1e6)
    first.write_text("150\n")
    assert meter.joules() == pytest.approx((250 + 50) / 1e6)


def test_a_machine_without_counters_has_no_meter(tmp_path):
    with pytest.raises(OSError, match="no counter"):
        RAPLMeter(tmp_path)
    zone(tmp_path, 0, "psys", 5)
    with pytest.raises(OSError, match="no counter"):
        RAPLMeter(tmp_path)


def program(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_power_that_is_told_again_and_again_becomes_an_energy(tmp_path, monkeypatch):
    program(tmp_path / "nvidia-smi", 'echo "$@" >&2; while :; do echo 200.00; sleep 0.05; done')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    meter = nvidia_meter()
    try:
        earliest = time.perf_counter()
        before, begun = meter.joules(), time.perf_counter()
        time.sleep(0.2)
        ended = time.perf_counter()
        used, latest = meter.joules() - before, time.perf_counter()
        # however long one of these lines takes
        assert 199.9 * (ended - begun) <= used <= 200.1 * (latest - earliest)
    finally:
        meter.close()


@pytest.mark.parametrize("script", ["echo '[N/A]'", "exit 1", "echo 0.0; exec sleep 5"])
def test_a_program_that_tells_no_power_is_no_meter(tmp_path, monkeypatch, script):
    program(tmp_path / "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(OSError, match="tells no power"):
        nvidia_meter()


def test_a_program_that_is_silent_is_no_meter(tmp_path):
    program(tmp_path / "silent", "exec sleep 60")
    begun = time.monotonic()
    with pytest.raises(OSError, match="tells no power"):
        PowerMeter([str(tmp_path / "silent")], lambda _: None, "nobody", patience=0.2)
    assert time.monotonic() - begun < 30


def test_what_powermetrics_says():
    assert apple_milliwatts("Combined Power (CPU + GPU + ANE): 1234 mW\n") == 1234.0
    assert apple_milliwatts("CPU Power: 800 mW\n") is None
    assert apple_milliwatts("\n") is None
    for figure in ("nan", "inf", "-5", "1e999", "7 W"):
        assert apple_milliwatts(f"Combined Power (CPU + GPU + ANE): {figure} mW\n") is None


def test_without_a_gpu_there_is_no_meter_of_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert find_meter(gpu=True) is None
