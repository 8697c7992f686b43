"""Streams of events: comments while nothing comes, errors in the middle, clients that leave."""

import asyncio

from edgellm.errors import ReadError
from edgellm.server.http.event_stream import COMMENT, DONE, EventStream, event


class Connection:
    """What a web server gives an application: it takes what is sent until its client leaves."""

    def __init__(self):
        self.sent = []
        self.changed = asyncio.Event()
        self.left = asyncio.Event()

    async def send(self, message):
        if message.get("body"):
            self.sent.append(message["body"])
            self.changed.set()

    async def receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def wait_for(self, *bodies):
        while self.sent[-len(bodies) :] != list(bodies):
            self.changed.clear()
            await self.changed.wait()


def describe(error):
    return event(error.openai())


def run(coroutine):
    asyncio.run(asyncio.wait_for(coroutine, 30))


def test_comments_come_while_no_event_does():
    async def main():
        connection = Connection()

        async def events():
            await connection.wait_for(COMMENT, COMMENT)
            yield b"data: 1\n\n"
            await connection.wait_for(b"data: 1\n\n", COMMENT)
            yield DONE

        stream = EventStream(events(), describe, keep_alive=0.01)
        await stream({}, connection.receive, connection.send)
        assert connection.sent[-1] == DONE

    run(main())


def test_an_error_in_the_middle_is_the_last_event():
    async def main():
        connection = Connection()

        async def events():
            yield b"data: 1\n\n"
            raise ReadError("a layer cannot be read", hint="look at the disk")
            yield DONE

        await EventStream(events(), describe)({}, connection.receive, connection.send)
        first, last = connection.sent
        assert first == b"data: 1\n\n"
        # the file's name is for the log
        assert b'"error":{"message":"the server has failed' in last

    run(main())


def test_events_are_closed_where_the_client_leaves():
    async def main():
        connection = Connection()
        closed = asyncio.Event()

        async def events():
            try:
                yield b"data: 1\n\n"
                await asyncio.Event().wait()
            finally:
                closed.set()

        stream = EventStream(events(), describe)
        answering = asyncio.create_task(stream({}, connection.receive, connection.send))
        await connection.wait_for(b"data: 1\n\n")
        connection.left.set()
        await answering
        assert closed.is_set()

    run(main())
