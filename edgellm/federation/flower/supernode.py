"""A client of a federation: asks Flower's SuperLink for tasks, and brings the answers.

Flower's own command keeps a process that runs what the server sends. Here the code that learns is
edgellm's, in this process; what comes over the network are numbers and a document.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from edgellm.errors import ConfigError, EdgeLLMError, MachineError, NotFiniteError, ReadError
from edgellm.federation.flower.calls import Calls, ForgottenError, Made, Say, TakenError
from edgellm.federation.flower.library import require_flower
from edgellm.federation.flower.places import GONE_SECONDS, WORD_HEADER
from edgellm.federation.flower.pulse import INTERVAL, Pulse
from edgellm.federation.flower.records import as_records, from_records
from edgellm.federation.invitations import Invitation
from edgellm.federation.task import Answer, Task, task_from

LOOK_SECONDS = 0.5
"""Between two questions whether there is something to do."""

END_SECONDS = 10.0
"""In which a server fetches the last answer."""

PASSING = (NotFiniteError, ReadError)
"""Errors after which the next round may succeed."""


class _Word:
    """Brings the word of this process with each request, of Flower's interceptors."""

    def __init__(self) -> None:
        self._word = secrets.token_hex(16)

    def intercept(self, context: Any, call_next: Callable[[Any], Any]) -> Any:
        """Send a request on with the word."""
        context.request.headers[WORD_HEADER] = self._word
        return call_next(context)


class SuperNode:
    """A client's place in a federation.

    Args:
        invitation: what lets it in.
        server: the server's address; None: as the invitation has it.
        wait: seconds that the server may be away.
        say: tells a person what happens.
    """

    def __init__(
        self, invitation: Invitation, *, server: str | None, wait: float, say: Say
    ) -> None:
        require_flower()
        self._invitation, self._say = invitation, say
        self._server = server or invitation.server
        self._calls = Calls(self._server, wait=wait, say=say)
        self._node: Any = None

    def work(self, answer: Callable[[Task], Answer]) -> None:
        """Answer one task after another, until the last one.

        Raises:
            ConfigError: the invitation's key is damaged.
            MachineError: the server is away for too long, or refuses.
            EdgeLLMError: a task does not fit this client.
        """
        with self._client() as client:
            try:
                while True:
                    self._node = self._activated(client)
                    self._say(f"{self._invitation.client}: there, at {self._server}")
                    with Pulse(client, self._node), suppress(ForgottenError):
                        self._work(client, answer)
                        return
            finally:
                if self._node is not None:
                    self._leave(client)

    def _client(self) -> Any:
        from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
        from flwr.supercore.primitives.asymmetric import bytes_to_private_key
        from flwr.supernode.fleet_http_client import FleetHttpClient
        from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

        # a proxy of the environment is for other places than a private network
        os.environ["NO_PROXY"] = "*"
        try:
            key = bytes_to_private_key(self._invitation.key.encode())
            return FleetHttpClient.from_server_address(
                self._server,
                insecure=False,
                root_certificates=self._invitation.certificate.encode(),
                interceptors=[
                    RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                    NodeAuthHttpInterceptor(key, key.public_key()),
                    _Word(),
                ],
            )
        except (ValueError, TypeError, OSError) as error:
            raise ConfigError(
                f"the invitation of {self._invitation.client} is damaged: {error}",
                hint="copy it again from the server",
            ) from error

    def _activated(self, client: Any) -> Any:
        """Tell the server that this client is there, and return what it is called there."""
        from flwr.proto.fleet_pb2 import ActivateNodeRequest
        from flwr.proto.node_pb2 import Node
        from flwr.supercore.primitives.asymmetric import bytes_to_private_key, public_key_to_bytes

        key = bytes_to_private_key(self._invitation.key.encode()).public_key()
        request = ActivateNodeRequest(
            public_key=public_key_to_bytes(key), heartbeat_interval=INTERVAL
        )
        ends = 0.0
        while True:
            try:
                found = self._calls.made(lambda: client.ActivateNode(request))
                break
            except TakenError as error:
                if ends and time.monotonic() > ends:
                    raise self._taken() from error
                if not ends:
                    ends = time.monotonic() + GONE_SECONDS + LOOK_SECONDS
                    self._say(
                        f"another {self._invitation.client} is there, or was until "
                        f"{GONE_SECONDS:.0f} s ago: waiting whether it goes; each client needs an "
                        "invitation of its own"
                    )
                time.sleep(LOOK_SECONDS)
            except ForgottenError as error:
                raise MachineError(
                    f"the server at {self._server} does not let {self._invitation.client} in",
                    hint="take the invitation that the server has written last, and compare the "
                    "clocks of both machines: 5 s are allowed",
                ) from error
        return Node(node_id=found.node_id)

    def _taken(self) -> MachineError:
        return MachineError(
            f"another client has the place of {self._invitation.client}",
            hint="each needs an invitation of its own, of which the server writes as many as its "
            "--clients; or end the other one",
        )

    def _work(self, client: Any, answer: Callable[[Task], Answer]) -> None:
        from flwr.common.serde import message_from_proto
        from flwr.proto.fleet_pb2 import PullMessagesRequest

        while True:
            found = self._called(lambda: client.PullMessages(PullMessagesRequest(node=self._node)))
            if not found.messages_list:
                time.sleep(LOOK_SECONDS)
                continue
            asked = message_from_proto(found.messages_list[0])
            message = self._received(client, asked, found.message_object_trees[0])
            if message is None:
                self._say("a task was withdrawn before it was fetched: waiting for the next one")
                continue
            try:
                task = task_from(*from_records(message, "the server"))
                made = answer(task)
            except EdgeLLMError as error:
                self._reply(client, asked, error)
                if not isinstance(error, PASSING):
                    raise
                self._say(f"this round failed: {error.message}")
                continue
            self._reply(client, asked, made)
            if task.kind == "end":
                self._stay(client)
                return

    def _received(self, client: Any, message: Any, tree: Any) -> Any:
        """Return a message with its content; None where the server has given this client up."""
        from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
        from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

        run, number = message.metadata.run_id, message.metadata.message_id
        contents: dict[str, bytes] = {}
        for one in iterate_object_tree(tree):
            request = PullObjectRequest(node=self._node, run_id=run, object_id=one.object_id)
            found = self._called(partial(client.PullObject, request))
            if not found.object_available:
                return None
            contents[one.object_id] = found.object_content
        received = ConfirmMessageReceivedRequest(
            node=self._node, run_id=run, message_object_id=number
        )
        self._called(lambda: client.ConfirmMessageReceived(received))
        return inflate_object_from_contents(number, contents)

    def _reply(self, client: Any, asked: Any, made: Answer | EdgeLLMError) -> None:
        """Bring an answer, or say why there is none."""
        from flwr.app import Error, Message
        from flwr.app.message import remove_content_from_message
        from flwr.common.constant import ErrorCode
        from flwr.common.serde import message_to_proto
        from flwr.proto.fleet_pb2 import PushMessagesRequest
        from flwr.proto.message_pb2 import PushObjectRequest
        from flwr.supercore.inflatable.inflatable_object import (
            get_all_nested_objects,
            get_object_tree,
            no_object_id_recompute,
        )

        if isinstance(made, EdgeLLMError):
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            reply = Message(Error(code, made.message), reply_to=asked)
        else:
            reply = Message(as_records(made.as_plain(), made.numbers), reply_to=asked)
        run = asked.metadata.run_id
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects = get_all_nested_objects(reply)
            request = PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[0.0],
            )
            found = self._called(lambda: client.PushMessages(request))
            for number in found.objects_to_push:
                part = PushObjectRequest(
                    node=self._node,
                    run_id=run,
                    object_id=number,
                    object_content=objects[number].deflate(),
                    session_id=found.session_id,
                )
                self._called(partial(client.PushObject, part))

    def _stay(self, client: Any) -> None:
        """Stay until the server has closed: Flower drops what it has of clients that are gone."""
        import httpx
        from flwr.proto.fleet_pb2 import PullMessagesRequest

        ends = time.monotonic() + END_SECONDS
        with suppress(httpx.HTTPError):
            while time.monotonic() < ends:
                client.PullMessages(PullMessagesRequest(node=self._node))
                time.sleep(LOOK_SECONDS)

    def _leave(self, client: Any) -> None:
        """Tell the server that this client goes, if it is there to hear it."""
        import httpx
        from flwr.proto.fleet_pb2 import DeactivateNodeRequest

        with suppress(httpx.HTTPError, RuntimeError):
            client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))

    def _called(self, call: Callable[[], Made]) -> Made:
        """Return what a call returns. Raises MachineError, ForgottenError."""
        try:
            return self._calls.made(call)
        except TakenError as error:
            raise self._taken() from error
