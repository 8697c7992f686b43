"""Windows or rows: the faster one by what was measured, and why."""

from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest
from support.clusters import members, part_budget
from support.paged import CONTEXT

import edgellm
from edgellm.checkpoint.checkpoint import read_checkpoint
from edgellm.distributed import choice, row_choice
from edgellm.distributed.choice import choose_split, compare
from edgellm.distributed.forecast import forecast_alone, forecast_windows
from edgellm.distributed.gathered import gather
from edgellm.settings import LoadSettings

LAYERS = 24
FAST, SLOW = 1e-7, 1e-1


@pytest.fixture(scope="module")
def folder(tiny_folder):
    return tiny_folder("llama-3.2", config={"num_hidden_layers": LAYERS})


@contextmanager
def gathered(folder, place, memories=("500MB", "500MB"), **settings):
    own, *others = memories
    load = {"memory": own, "context": CONTEXT, "threads": 1} | settings
    with members(folder, place, others) as hosts, ExitStack() as stack:
        yield gather(read_checkpoint(folder), LoadSettings(machines=hosts, **load), stack)


def rates(*, trip, weights=1e6, disks=None):
    """Speeds as if they had been measured."""
    return SimpleNamespace(trips=[0.0, trip], weights=[weights] * 2, disks=disks)


class LinksAlone:
    """Speeds of which no more than the links may be measured."""

    trips = (0.0, SLOW)


def test_the_faster_kind_is_taken(folder, tmp_path, monkeypatch):
    # four gathers a layer: these are slower than any arithmetic is said to be
    monkeypatch.setattr(row_choice, "_pays_all_attended", lambda *_: False)
    with gathered(folder, tmp_path) as machines:
        fast, slow = (compare(machines, rates(trip=trip)) for trip in (FAST, SLOW))
        assert (fast.kind, slow.kind) == ("rows", "windows")
        assert "which all machines compute at once" in fast.reason
        assert "on their way between machines for 4.8 s" in slow.reason
        # both halve the weights; by rows the halves are computed at the same time
        windows, rows = fast.kinds["windows"], fast.kinds["rows"]
        assert rows.arithmetic_seconds < 0.6 * windows.arithmetic_seconds
        assert slow.kinds["rows"].link_seconds == pytest.approx(4 * LAYERS * SLOW / 2, rel=0.01)
        assert slow.kinds["windows"].link_seconds == SLOW
        assert choose_split(machines, LinksAlone()) == "windows"
        monkeypatch.setattr(choice, "SLOWEST_WEIGHTS", 1e6)  # as slow as these are said to be
        assert choose_split(machines, rates(trip=FAST)) == "rows"


def test_this_machine_alone_is_beside_them(folder, tmp_path):
    disk = read_checkpoint(folder).layers[0].nbytes
    with gathered(folder, tmp_path / "memory") as machines:
        slow = rates(trip=FAST)
        alone, together = forecast_alone(machines, slow), compare(machines, slow).chosen
        assert alone.read_seconds == alone.link_seconds == 0
        # as much arithmetic as by windows, without the links
        assert together.arithmetic_seconds < alone.seconds_per_token
        windows = forecast_windows(machines, slow)
        assert alone.seconds_per_token == pytest.approx(windows.arithmetic_seconds)
    paged = part_budget(folder, LAYERS, 2, outer=True)
    with gathered(folder, tmp_path / "disk", (paged, "500MB")) as machines:
        alone = forecast_alone(machines, rates(trip=FAST, weights=1e12, disks=[disk, 1.0]))
        assert alone.seconds_per_token == alone.parts[0].plan.streamed_bytes / disk
        assert LAYERS // 2 < alone.seconds_per_token < 2 * LAYERS
    part = part_budget(folder, LAYERS // 2, 0, outer=True) // 2
    with gathered(folder, tmp_path / "none", (part, "500MB")) as machines:
        assert forecast_alone(machines, rates(trip=FAST)) is None


def test_what_was_asked_for_is_taken(folder, tmp_path):
    with gathered(folder, tmp_path, split="windows") as machines:
        assert choose_split(machines, None) == "windows"
        asked = compare(machines, rates(trip=FAST))
        assert (asked.kind, asked.reason) == ("windows", "it was asked for")
        assert set(asked.as_dict()["kinds"]) == {"windows", "rows"}


def test_what_is_kept_on_disk_is_kept_by_layers(folder, tmp_path):
    with gathered(folder, tmp_path, prompt_cache=str(tmp_path)) as machines:
        assert choose_split(machines, None) == "windows"
        found = compare(machines, rates(trip=FAST))
        assert (found.kind, set(found.kinds)) == ("windows", {"windows", "rows"})
        assert "the prefix cache on disk" in found.reason


def test_rows_that_are_not_possible_are_said(folder, tmp_path):
    with gathered(folder, tmp_path, backend="mlx") as machines:
        assert choose_split(machines, None) == "windows"
        found = compare(machines, rates(trip=FAST))
        assert (found.kind, set(found.kinds)) == ("windows", {"windows"})
        assert "rows are not possible: rows are split where edgellm's CPU kernels" in found.reason


def test_windows_that_page_take_what_the_disks_need_together(folder, tmp_path):
    half = LAYERS // 2
    budgets = [part_budget(folder, half, half // 4, outer=outer) for outer in (True, False)]
    layer = read_checkpoint(folder).layers[0].nbytes
    with gathered(folder, tmp_path, budgets) as machines:
        disks = [3.0 * layer, 1.0 * layer]
        windows = compare(machines, rates(trip=FAST, weights=1e12, disks=disks)).kinds["windows"]
    missed = sum(part.plan.streamed_bytes for part in windows.parts)
    # whole layers: the slower disk may have one half of a layer too many
    assert missed / sum(disks) <= windows.seconds_per_token <= missed / sum(disks) + 0.5
    assert windows.parts[0].share > 0.6


def test_where_disks_are_waited_for_rows_hold_more(tiny_folder, tmp_path):
    # layers that are large beside the pages that each of their buffers is rounded up to
    folder = tiny_folder("llama-3.2", config={"num_hidden_layers": 8, "intermediate_size": 1024})
    half = 4
    budgets = [part_budget(folder, half, half // 4, outer=outer) for outer in (True, False)]
    disk = 5.0 * read_checkpoint(folder).layers[0].nbytes
    measured = rates(trip=FAST, weights=1e12, disks=[disk, disk])
    with gathered(folder, tmp_path, budgets) as machines:
        assert choose_split(machines, measured) == "rows"
        found = compare(machines, measured)
    # two buffers hold two layers' rows, and not two layers on each machine
    missed = {
        kind: sum(part.plan.streamed_bytes for part in forecast.parts)
        for kind, forecast in found.kinds.items()
    }
    assert missed["rows"] < missed["windows"]
    assert "of which more stay in memory" in found.reason


def test_auto_is_the_default_and_answers_are_the_same(folder, tmp_path):
    load = {"memory": "500MB", "context": CONTEXT, "threads": 1}
    with members(folder, tmp_path, ["500MB"]) as hosts:
        texts = []
        for split in ("windows", "rows", None):
            chosen = {"split": split} if split else {}
            with edgellm.load(folder, machines=hosts, **load, **chosen) as llm:
                texts.append(llm.generate([3, 1, 4], max_tokens=8).text)
                assert llm.machines[0].split == split or split is None
    assert len(set(texts)) == 1


@pytest.mark.parametrize("split", ["windows", "rows"])
def test_a_budget_that_is_too_small_is_that_of_a_machine(folder, tmp_path, split):
    with gathered(folder, tmp_path, ("500MB", "100KB"), split=split) as machines:
        with pytest.raises(edgellm.MemoryBudgetError) as error:
            compare(machines, rates(trip=FAST, disks=[1.0, 1.0]))
        name = machines.peers[0].machine.name
    assert error.value.message.startswith(f"machine {name}: the budget is 100 KB")
    assert "--memory" in error.value.hint
