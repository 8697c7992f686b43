"""A server that is told to end: answers under way end too, whole or with an error, in time."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

ANSWERS = 96
"""Far more, one after the other, than the fastest machine gives before it has to end."""

SECONDS = 5
"""That the answers and the process may take, and what a busy machine adds."""


async def last_event(port, number):
    """The last event of a long answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = {
        "model": "stories",
        "prompt": f"Once {number}",
        "stream": True,
        "logit_bias": {"2": -99},
    }
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    events = re.findall(r"data: (.*)\n\n", (await reader.read()).decode())
    writer.close()
    return events[-1]


def test_sigterm_ends_answers_with_an_error_and_the_process_in_time():
    command = [sys.executable, "-m", "edgellm", "serve", "stories", "--port", "0"]

    async def leave(process):
        port = int(re.search(r":(\d+)/v1", process.stderr.readline()).group(1))
        answers = [asyncio.create_task(last_event(port, number)) for number in range(ANSWERS)]
        await asyncio.sleep(1)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        return await asyncio.gather(*answers), begun

    with subprocess.Popen(
        [*command, "--parallel", "1"], stderr=subprocess.PIPE, text=True
    ) as process:
        events, begun = asyncio.run(leave(process))
        assert process.wait() == 143
        assert time.monotonic() - begun < 2 * SECONDS
    cut = [json.loads(event) for event in events if event != "[DONE]"]
    assert cut, "one after the other takes longer than the server waits"
    assert {event["error"]["code"] for event in cut} == {"shutting_down"}
