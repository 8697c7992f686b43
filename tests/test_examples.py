"""The desktop example: it answers, stops at once, and ends whatever it is doing."""

import importlib.util

import pytest
from support.paths import ROOT


@pytest.fixture(scope="module")
def desktop():
    path = ROOT / "examples" / "desktop.py"
    found = importlib.util.spec_from_file_location("desktop", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def worker(desktop):
    worker = desktop.Worker("stories", threads=1)
    yield worker
    worker.quit()
    worker.join()


def events_until(worker, last):
    """Return the events up to one of a kind."""
    events = []
    while not events or events[-1][0] != last:
        events.append(worker.events.get(timeout=30))
        assert events[-1][0] != "failed"
    return events


def test_without_a_display_it_is_a_console(desktop, capsys):
    worker = desktop.Worker("stories", threads=1, context=64)
    worker.start()
    desktop.console(worker, ["Tell me about a dog."])
    worker.quit()
    worker.join()
    assert len(capsys.readouterr().out.split()) > 10


def test_an_answer_stops_at_once_also_before_it_begins(worker):
    worker.start()
    shares = [value for kind, value in events_until(worker, "ready") if kind == "loading"]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    worker.ask("Tell me about a dog.")
    events_until(worker, "text")
    worker.stop()
    assert events_until(worker, "done")[-1] == ("done", "cancelled")
    worker.ask("Tell me about a cat.")
    worker.stop()
    events = events_until(worker, "done")
    assert events[-1] == ("done", "cancelled")
    assert "".join(text for kind, text in events if kind == "text") == ""


@pytest.mark.parametrize("when", ["loading", "ready", "text"])
def test_it_ends_whatever_it_is_doing(worker, when):
    worker.start()
    if when == "text":
        events_until(worker, "ready")
        worker.ask("Tell me about a dog.")
    events_until(worker, when)
    worker.quit()
    worker.join(30)
    assert not worker.is_alive()
