"""The documented service under thousands of clients, a third of whom leave."""

import asyncio
import signal

import pytest

pytest.importorskip("uvicorn", reason="the extra `acceptance` is not installed")
from acceptance.service import clients

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def right():
    return clients.lone_answers()


@pytest.mark.parametrize(("path", "number"), [("/", 3000), ("/threads", 100)])
def test_no_client_is_refused_and_every_answer_is_right(path, number, right):
    with clients.service() as (port, process):
        report = asyncio.run(clients.measure(port, process.pid, path=path, clients=number))
        process.send_signal(signal.SIGTERM)
        # it ends its answers, closes the model, and then takes the signal as its own end
        assert process.wait(30) in (0, -signal.SIGTERM)
    print(*(f"{name:24}{figure}" for name, figure in report.rows()), sep="\n")
    assert report.refused == []
    assert [one for one in report.whole if one.text != right[one.request]] == []
    left = [one for one in report.answers if one.leaves]
    assert len(report.answers) == number
    assert number / 4 < len(left) < number / 2.5
    state = report.after
    assert (state["running"], state["waiting"], state["kv_bytes"]) == (0, 0, 0)
    assert state["threads"] == report.before["threads"]
    # flat: what the 1,500 clients of the second half left behind is 3 KB each; a KV cache is 90 KB
    assert report.growth * report.seconds / 2 < 5e6
