"""Flower's SuperLink in this process, with the door for clients alone.

Flower's own command opens two more doors at the same port: one that starts runs, with code that
their caller brings, and one for processes that run it. Here are neither: nobody can ask for more
than a client can, and no code travels.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from edgellm.errors import EdgeLLMError, MachineError
from edgellm.federation.flower.certificates import CERTIFICATE, KEY, Keys
from edgellm.federation.flower.door import guarded_app
from edgellm.federation.flower.library import require_flower
from edgellm.federation.flower.places import Places
from edgellm.federation.flower.records import MESSAGE_TYPE, as_records, from_records
from edgellm.federation.task import Answer, Task, answer_from

LOOK_SECONDS = 0.1

_END_SECONDS = 5.0
"""What open connections have to end in."""


class SuperLink:
    """The door of a federation; ``with`` opens and closes it.

    Args:
        listening: a socket, which is closed with the door.
        keys: who gets in.
    """

    def __init__(self, listening: socket.socket, keys: Keys) -> None:
        require_flower()
        self._socket = listening
        self._keys = keys
        self._names: dict[int, str] = {}
        self._places = Places()
        self._state: Any = None
        self._run = 0
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> SuperLink:
        """Open the door. Raises MachineError where that fails."""
        import uvicorn
        from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
        from flwr.server.superlink.linkstate import LinkStateFactory
        from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
        from flwr.supercore.object_store import ObjectStoreFactory
        from flwr.superlink.federation import NoOpFederationManager

        factory = LinkStateFactory(
            FLWR_IN_MEMORY_DB_NAME,
            NoOpFederationManager(),
            ObjectStoreFactory(FLWR_IN_MEMORY_DB_NAME),
        )
        self._state = state = factory.state()
        for name, key in self._keys.clients.items():
            node = state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key.encode(), 0)
            self._names[node] = name
        self._run = state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        task = state.get_run_info(run_ids=[self._run])[0].primary_task_id
        state.claim_task(task)
        state.activate_task(task)
        # with a token a run ends as failed after a minute without signs of life of what runs it,
        # while this machine sleeps, for example; here that is this process itself
        state.task_token_store.pop(task)
        config = uvicorn.Config(
            guarded_app(factory, self._keys.clients.values(), self._places),
            ssl_certfile=str(self._keys.folder / CERTIFICATE),
            ssl_keyfile=str(self._keys.folder / KEY),
            log_config=None,
            log_level="critical",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=int(_END_SECONDS),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise MachineError(
                    "Flower's SuperLink did not open",
                    hint="set FLWR_LOG_LEVEL=DEBUG, which shows what Flower says",
                )
            time.sleep(LOOK_SECONDS / 10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the door."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(_END_SECONDS + 1)
        self._socket.close()

    def present(self) -> Sequence[str]:
        """Return the names of the clients that are there."""
        return sorted(self._names[node] for node in self._state.get_nodes(self._run))

    def traffic(self) -> tuple[int, int]:
        """Return the bytes that were sent and received so far, as Flower counts them."""
        run = self._state.get_run_info(run_ids=[self._run])[0]
        return run.bytes_sent, run.bytes_recv

    def ask(
        self, task: Task, clients: Sequence[str], seconds: float
    ) -> Iterator[tuple[str, Answer | EdgeLLMError]]:
        """Send a task, and yield what each client answers, or why it does not.

        Args:
            task: the same for all.
            clients: by their names.
            seconds: after which who has not answered is given up.
        """
        nodes = {name: node for node, name in self._names.items()}
        arrived = {name: self._arrivals(name) for name in clients}
        records = as_records(task.as_plain(), task.numbers)
        waiting = {self._send(records, nodes[name], task.round, seconds): name for name in clients}
        del records
        ends = time.monotonic() + seconds
        while waiting:
            for message in self._state.get_message_res(set(waiting), self._run):
                asked = message.metadata.reply_to_message_id
                name = waiting.pop(asked)
                try:
                    answer: Answer | EdgeLLMError = self._received(message, name, ends)
                except EdgeLLMError as error:
                    answer = error
                self._forget(asked)
                yield name, answer
            for asked, name in list(waiting.items()):
                if self._arrivals(name) != arrived[name]:  # one that came since does not know it
                    del waiting[asked]
                    self._forget(asked)
                    yield name, _gone(name)
            if time.monotonic() > ends:
                break
            time.sleep(LOOK_SECONDS)
        for asked, name in waiting.items():
            self._forget(asked)
            yield (
                name,
                MachineError(
                    f"{name} did not answer within {seconds:.0f} s", hint="use a longer --timeout"
                ),
            )

    def _arrivals(self, name: str) -> int:
        """Return how many processes have taken a client's place."""
        return self._places.arrivals[self._keys.clients[name]]

    def _forget(self, message: str) -> None:
        """Drop a message that nobody will fetch any more, and the numbers that it holds."""
        self._state.delete_messages({message})
        self._state.object_store.delete(message)

    def _send(self, records: Any, node: int, group: int, seconds: float) -> str:
        """Leave a message for a client, and return its number."""
        from flwr.app.message import make_message, remove_content_from_message
        from flwr.app.metadata import Metadata
        from flwr.common.constant import SUPERLINK_NODE_ID
        from flwr.supercore.inflatable.inflatable_object import (
            get_all_nested_objects,
            get_object_tree,
            no_object_id_recompute,
        )

        state, run = self._state, self._run
        metadata = Metadata(
            run_id=run,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=node,
            reply_to_message_id="",
            group_id=str(group),
            created_at=time.time(),
            ttl=seconds + 60,
            message_type=MESSAGE_TYPE,
        )
        metadata.delivered_at = ""
        message = make_message(metadata=metadata, content=records)
        with no_object_id_recompute():
            found: str = message.object_id
            message.metadata.__dict__["_message_id"] = found
            session = state.start_session(run)
            objects = get_all_nested_objects(message)
            _, missing = state.store_message_and_object_tree(
                remove_content_from_message(message), get_object_tree(message), session
            )
            for one in missing:
                state.store_object(run, session, one, objects[one].deflate())
        return found

    def _received(self, message: Any, name: str, ends: float) -> Answer:
        """Return the answer that a message announces. Raises EdgeLLMError."""
        from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

        if message.has_error():
            if _is_of_one_gone(message.error):
                raise _gone(name)
            raise MachineError(_reason(name, message.error), hint=f"see what {name} says itself")
        number = message.metadata.message_id
        store = self._state.object_store
        contents: dict[str, bytes] = {}
        try:
            for tree in iterate_object_tree(store.get_object_tree(number)):
                contents[tree.object_id] = self._content(tree.object_id, name, ends)
            whole = inflate_object_from_contents(number, contents)
        except EdgeLLMError:
            raise
        except Exception as error:  # Flower has a dozen kinds, of what a stranger may have sent
            raise MachineError(
                f"{name} sent a message that Flower cannot read: {error}",
                hint="use the same version of Flower on all machines",
            ) from error
        finally:
            with suppress(Exception):
                store.delete(number)
        plain, numbers = from_records(whole, name)
        return answer_from(plain, numbers)

    def _content(self, number: str, name: str, ends: float) -> bytes:
        """Wait for a part of a message, which comes after the message itself."""
        while True:
            content: bytes | None = self._state.get_object(self._run, number)
            if content:
                return content
            if content is None or time.monotonic() > ends or name not in self.present():
                raise MachineError(
                    f"{name} did not send all of its answer", hint=f"see what {name} says itself"
                )
            time.sleep(LOOK_SECONDS)


def _gone(name: str) -> MachineError:
    return MachineError(f"{name} is gone", hint="start it again: it joins the next round")


def _is_of_one_gone(error: Any) -> bool:
    from flwr.common.constant import ErrorCode

    return bool(error.code == ErrorCode.NODE_UNAVAILABLE)


def _reason(name: str, error: Any) -> str:
    """Return why a client has not answered."""
    from flwr.common.constant import ErrorCode

    if error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION:
        return f"{name} failed: {error.reason}"
    return f"{name} did not answer: {error.reason} (Flower's code {error.code})"
