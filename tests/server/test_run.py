"""The socket that is listened on, as asyncio uses it."""

import asyncio
import socket

import pytest

from edgellm.errors import ConfigError
from edgellm.server.run import listen


def test_pieces_of_an_answer_are_sent_at_once():
    async def nodelay():
        seen = asyncio.get_running_loop().create_future()

        async def answer(_, writer):
            accepted = writer.get_extra_info("socket")
            seen.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = listen("127.0.0.1", 0)
        async with await asyncio.start_server(answer, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            found = await seen
            writer.close()
            return found

    assert asyncio.run(nodelay()) != 0


def test_an_address_that_is_taken_is_said():
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} cannot be listened on"):
            listen("127.0.0.1", port)
