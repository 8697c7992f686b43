"""How a disk is best read is found by measuring, and remembered."""

import pytest
from support.resources import NOTHING, held, more_since

from edgellm.files.locations import cache_folder
from edgellm.reading.disk_reader import Tuning
from edgellm.reading.tuning import find_tuning, measure_disk, tuned


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


def test_a_tuning_is_found_by_measuring_and_small_models_go_without(file):
    before = held()
    assert isinstance(find_tuning([file], seconds=0.01), Tuning)
    assert measure_disk([file], tuning=Tuning(), seconds=0.01) > 0
    assert tuned([file]) == Tuning()
    assert tuned([]) == Tuning()
    assert more_since(before) == NOTHING


def test_a_tuning_is_remembered_for_each_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(600 << 20)
    memory = cache_folder() / "disks.json"
    found = tuned([large])
    disk = f"{large.stat().st_dev:x}"
    assert disk in memory.read_text()
    memory.write_text(
        f'{{"{disk}": {{"threads": 7, "chunk": 4096}}, "other": {{"threads": -1, "chunk": "no"}}}}'
    )
    assert tuned([large]) == Tuning(threads=7, read_size=4096)
    memory.write_text("damaged")
    assert isinstance(found, Tuning)
    assert isinstance(tuned([large]), Tuning)
    assert disk in memory.read_text()
