"""What an application asks of the cluster through the supervisor: writes, reads, joins, leaves, hand-overs; checked, given a deadline, and passed on.

Two ways lead on from here:

- **Writes and reads** are for the leader's handler, wherever the leader is: the `Router` finds it, here or there, or waits for one within the deadline. On
  the leader, a quorum confirms its leadership before the handler is asked: a leader that was cut off would otherwise answer from what was true once.
- **What is decided about the quorum** goes to this node's Raft actor and is not forwarded: it changes who decides, so whoever asks must know whom he asks.
  A node that does not lead answers NotLeader with the leader's management address, to which the request can be sent again.

What is wrong with a request is said at once, with its field and value, before anything is sent. Runs in the supervisor's thread, but for the steps
that say otherwise; `reply` is the asker's future, None for a message that was told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pykka

from coterie.actors.base import Ref
from coterie.actors.errors import CoterieError, HandlerFailed, InvalidRequest, NoQuorum, NotLeader
from coterie.actors.future import LightFuture
from coterie.actors.handler_messages import HandleRead, HandleWrite
from coterie.actors.messages import Join, Joined, Leave, Left, Read, TransferLeadership, Write
from coterie.actors.node.assembly import Rooms
from coterie.actors.node.routing import Request, Router
from coterie.actors.node.topology import Picture
from coterie.actors.replication.requests import check_timeout
from coterie.actors.room_messages import ChangeQuorum, ReadIndex
from coterie.actors.traced import current_context


class Requests:
    """See the module's text. post: puts a callable into the supervisor's inbox; leaves: told who is to be taken out of the quorum."""

    def __init__(
        self,
        rooms: Rooms,
        picture: Picture,
        router: Router,
        post: Callable[[Callable[[], None]], object],
        leaves: Callable[[str], object] = lambda server: None,
    ) -> None:
        self._leaves = leaves
        self._rooms, self._picture, self._router, self._post = rooms, picture, router, post
        self._default = rooms.config.request_timeout
        self._handler: Any = None

    def register(self, handler: Any) -> bool:
        """From now on `handler`, the reference of a HandlerActor, carries out what reaches this node. Raises InvalidRequest."""
        if not (isinstance(handler, Ref) and handler.is_alive()):
            raise InvalidRequest(f"ref={handler!r}: give the reference of a running HandlerActor, as its start() returns it")
        self._handler = handler
        self._rooms.handler_changed(handler)
        return True

    # -- for the handler ------------------------------------------------------------------------------------------------------

    def write(self, message: Write, reply: LightFuture | None, forwarded: bool = False) -> None:
        """forwarded: another node has passed it on, so it is answered here or refused. Raises InvalidRequest."""
        op, data, client, trace = message.op, message.data, self._rooms.client, current_context()
        self._route(
            f"write {op!r}",
            message,
            reply,
            lambda: self._ask_handler(HandleWrite(op, data, trace, self._picture.me)),
            lambda at, left: client.write(at, op, data, left, trace),
            forwarded,
            lambda at, left: self._rooms.foreign_client.write(at, op, data, left),
        )

    def read(self, message: Read, reply: LightFuture | None, forwarded: bool = False) -> None:
        """As `write`. One that this node's own handler answers comes here only when what answers those has stopped."""
        if message.consistency is not None:
            raise NoQuorum(f"read {message.op!r}: this node is stopping; nothing was read")
        op, data, client, trace = message.op, message.data, self._rooms.client, current_context()
        self._route(
            f"read {op!r}",
            message,
            reply,
            lambda: self._ask_handler(HandleRead(op, data, trace, self._picture.me)),
            lambda at, left: client.read(at, op, data, left, trace),
            forwarded,
        )

    def _route(
        self,
        name: str,
        message: Write | Read,
        reply: LightFuture | None,
        here: Callable[[], LightFuture],
        there: Callable[[str, float], LightFuture],
        forwarded: bool,
        abroad: Callable[[str, float], LightFuture] | None = None,
    ) -> None:
        if not isinstance(message.op, str) or not isinstance(message.data, (bytes, bytearray, memoryview)):
            raise InvalidRequest(f"{name}: op is a string and data are bytes")
        self._router.place(Request(name, reply, self._deadline(message), here, there, forwarded, abroad))

    def _ask_handler(self, call: HandleWrite | HandleRead) -> LightFuture:
        handler = self._handler
        if handler is None:
            raise InvalidRequest(
                f"op={call.op!r}: no handler is registered on the leader {self._picture.me!r}; register one, or ask a cluster whose service has one"
            )
        answer = LightFuture()
        confirmed = self._rooms.raft.ask(ReadIndex(), block=False)

        def confirmed_or_not() -> None:
            """In the Raft actor's thread: to the handler, or back to be routed anew."""
            if confirmed.error is not None:
                answer.fail(confirmed.error if isinstance(confirmed.error, CoterieError) else NotLeader())
                return
            handled: LightFuture = handler.ask(call, block=False)
            handled.on_done(lambda: answered(handled))

        def answered(handled: LightFuture) -> None:
            error = handled.error
            if isinstance(error, pykka.ActorDeadError):  # before it came to this
                error = HandlerFailed(
                    f"op={call.op!r}: the handler actor of {self._picture.me!r} is dead, and did nothing; register another"
                )
            if error is not None:
                answer.fail(error)
            else:
                answer.set(handled.get(timeout=0))

        confirmed.on_done(confirmed_or_not)
        return answer

    # -- about the quorum -----------------------------------------------------------------------------------------------------

    def join(self, message: Join, reply: LightFuture | None) -> None:
        """Answers Joined. Raises InvalidRequest, AlreadyMember, NotLeader."""
        if not isinstance(message.id, str) or not message.id:
            raise InvalidRequest(f"id={message.id!r}: give the node_id of the server that joins")
        self._check_leads()  # first: only the leader's own view says what is wrong with a join
        server = next((s for s in self._picture.raft.servers if s.id == message.id), None)
        if server is None or (server.suffrage, server.address) != (
            "voter",
            message.raft_addr,
        ):  # else it may be repeated, whatever gossip says
            self._rooms.check_join(message.id, message.raft_addr, self._picture.membership)
        change = ChangeQuorum("join", message.id, message.raft_addr, self._deadline(message))
        self._change(change, Joined(message.id, message.raft_addr), reply)

    def leave(self, message: Leave, reply: LightFuture | None) -> None:
        """Answers Left. Raises InvalidRequest, NotLeader."""
        if not isinstance(message.id, str) or not message.id:
            raise InvalidRequest(f"id={message.id!r}: give the node_id of the server that leaves")
        self._check_leads()
        self._leaves(message.id)
        change = ChangeQuorum("leave", message.id, "", self._deadline(message))
        others = [s.id for s in self._picture.raft.servers if s.id != message.id and s.suffrage == "voter"]
        if message.id == self._picture.me and self._picture.topology.leads and others:
            self._leave_by_heir(change, others, reply)
        else:
            self._change(change, Left(message.id), reply)

    def _leave_by_heir(self, change: ChangeQuorum, others: list[str], reply: LightFuture | None) -> None:
        """The leader itself leaves: it hands over first, so that nobody waits for a time-out, and the new leader takes it out. If nobody takes over, it takes itself
        out, which ends its leadership with the commit (Raft thesis, 4.2.2)."""
        handed = self._rooms.raft.ask(TransferLeadership(self._picture.topology.heir(others)), block=False)
        answer = Left(change.id)

        def out_of_it() -> None:
            if handed.error is not None:
                self._pass_to_raft(change, answer, reply)
                return
            raft, client = self._rooms.raft, self._rooms.client
            self._router.place(
                Request(
                    f"leave {change.id!r}",
                    reply,
                    change.deadline,
                    lambda: _instead(raft.ask(change, block=False), answer),
                    lambda at, left: client.leave(at, change.id, left),
                )
            )

        handed.on_done(lambda: self._post(out_of_it))

    def transfer(self, message: TransferLeadership, reply: LightFuture | None) -> None:
        """Answers True. Raises InvalidRequest, NotLeader."""
        if not (message.id is None or (isinstance(message.id, str) and message.id)):
            raise InvalidRequest(f"id={message.id!r}: give the node_id of the server that is to lead, or None")
        self._check_leads()
        self._pass_to_raft(message, True, reply)

    def _change(self, change: ChangeQuorum, answer: Joined | Left, reply: LightFuture | None) -> None:
        self._check_leads()
        self._pass_to_raft(change, answer, reply)

    def _check_leads(self) -> None:
        """Raises NotLeader."""
        topology = self._picture.topology
        if not topology.leads and topology.leader_id != self._picture.me:
            raise NotLeader(topology.leader_id, self._picture.mgmt_of(topology.leader_id))

    def _pass_to_raft(self, message: Any, answer: Any, reply: LightFuture | None) -> None:
        future = self._rooms.raft.ask(message, block=False)

        def done() -> None:
            error = future.error
            if isinstance(error, NotLeader):
                error = NotLeader(error.leader_id, self._picture.mgmt_of(error.leader_id))
            if reply is None or reply.done:
                return
            if error is not None:
                reply.fail(error)
            else:
                reply.set(answer)

        future.on_done(lambda: self._post(done))

    def _deadline(self, message: Any) -> float:
        return time.monotonic() + check_timeout(message.timeout, self._default)


def _instead(future: LightFuture, answer: Any) -> LightFuture:
    """A future with `answer` when `future` has a value, or its error."""
    other = LightFuture()
    future.on_done(lambda: other.set(answer) if future.error is None else other.fail(future.error))
    return other
