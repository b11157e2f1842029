"""`AsyncCluster`: the same messages with `await`. No event loop is ever blocked, and any loop in any thread may use one node."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from typing import Any

from coterie.actors.config import Config
from coterie.actors.event_stream import EventStream
from coterie.actors.future import LightFuture
from coterie.actors.messages import (
    Acks,
    Applied,
    Apply,
    ClusterStatus,
    Consistency,
    DeadLetters,
    Event,
    Join,
    Joined,
    Leave,
    Left,
    LetterPage,
    Publish,
    Published,
    PublishedMany,
    PublishMany,
    Read,
    RegisterHandler,
    Requeue,
    Status,
    Subscribe,
    TransferLeadership,
    Write,
)
from coterie.actors.supervisor import ClusterRef, ClusterSupervisor
from coterie.transport.logs import Log

LOG = Log("coterie.aio")


async def resolved(future: LightFuture) -> Any:
    """Await a `LightFuture`. Cancelling the waiter leaves the request as it is: it may still take effect."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def from_any_thread() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(wake)

    future.on_done(from_any_thread)
    await waiter
    return future.get(timeout=0)


def _in_a_thread(name: str, work: Callable[[], object]) -> None:
    """Not in the loop's own pool, which may be full of the application's work."""
    threading.Thread(target=work, name=name, daemon=True).start()


def _resolve(future: LightFuture, work: Callable[[], object]) -> None:
    try:
        future.set(work())
    except BaseException as error:  # noqa: BLE001 - whoever awaits it gets it
        future.fail(error)


def _stop_once_started(starting: LightFuture) -> None:
    """Nobody else holds the reference, or hears of an error. A node that did not start has closed what it had opened."""
    try:
        starting.get().stop()
    except Exception:
        LOG.warning("the start of an AsyncCluster was cancelled, and its node then failed to start or to stop", exc_info=True)


class AsyncEvents(AsyncIterator[Event]):
    """Events as an async iterator: `async for event in cluster.events()`. It begins with the first event asked for, or with `await cluster.events()`.
    Call `close()` when done, or use it in `async with`. No thread waits for it. For one task of one loop."""

    def __init__(self, subscribe: Callable[[], Awaitable[EventStream]]) -> None:
        self._subscribe = subscribe
        self._stream: EventStream | None = None
        self._something = asyncio.Event()
        self._over = threading.Event()

    def __await__(self) -> Generator[Any, None, AsyncEvents]:
        return self._opened().__await__()

    async def _opened(self) -> AsyncEvents:
        if self._stream is None and not self._over.is_set():
            loop = asyncio.get_running_loop()
            self._stream = stream = await self._subscribe()
            if self._over.is_set():  # meanwhile
                stream.close()

            def wake() -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._something.set)

            stream.on_change(wake)
        return self

    async def __anext__(self) -> Event:
        await self._opened()
        while (stream := self._stream) is not None:
            self._something.clear()
            closed = stream.closed
            event = stream.get(timeout=0)
            if event is not None:
                return event
            if closed:
                break
            await self._something.wait()
        raise StopAsyncIteration

    @property
    def missed(self) -> int:
        """How many events were lost so far, since this listener was too slow."""
        return self._stream.missed if self._stream is not None else 0

    def close(self) -> None:
        """End it; a loop over it ends."""
        self._over.set()
        if self._stream is not None:
            self._stream.close()

    async def __aenter__(self) -> AsyncEvents:
        return await self._opened()

    async def __aexit__(self, *_: object) -> None:
        self.close()


class AsyncCluster:
    """A running node for asyncio: `async with AsyncCluster(config) as cluster: await cluster.publish(...)`. Methods as in `Cluster`."""

    def __init__(self, config: Config, handler: Any = None) -> None:
        self.config, self._handler = config, handler
        self._ref: ClusterRef | None = None

    @property
    def ref(self) -> ClusterRef:
        """The actor behind the methods, for messages of your own. Raises RuntimeError before `start`."""
        if self._ref is None:
            raise RuntimeError("the cluster is not started: use 'async with AsyncCluster(config)', or 'await cluster.start()'")
        return self._ref

    async def start(self) -> AsyncCluster:
        """Start the node; `async with` does it too. Who cancels it has no node: one that comes up is stopped. Raises ConfigError, StorageError, BindFailed."""
        if self._ref is not None and self._ref.is_alive():
            raise RuntimeError("the cluster is started already: one AsyncCluster is one node")
        starting = LightFuture()
        _in_a_thread(f"{self.config.node_id}/start", lambda: _resolve(starting, lambda: ClusterSupervisor.start(self.config)))
        try:
            self._ref = await resolved(starting)
        except asyncio.CancelledError:
            _in_a_thread(f"{self.config.node_id}/start-cancelled", lambda: _stop_once_started(starting))
            raise
        if self._handler is not None:
            try:
                await self.register(self._handler)
            except BaseException:  # also when it is cancelled: nobody would stop the node
                await self.stop()
                raise
        return self

    async def stop(self) -> None:
        """Stop the node gracefully: a leader hands its leadership over first, and all that was acknowledged is on the disk. Safe to call twice."""
        if self._ref is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._ref.stop)

    async def __aenter__(self) -> AsyncCluster:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _ask(self, message: Any) -> Any:
        return await resolved(self.ref.ask(message, block=False))

    async def register(self, handler: Any) -> None:
        """Use the handler actor `handler` (the reference that `HandlerActor.start()` gives) from now on, instead of the one before. Raises InvalidRequest."""
        await self._ask(RegisterHandler(handler))

    async def publish(
        self,
        topic: str,
        data: bytes,
        *,
        acks: Acks = "quorum",
        message_id: str | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Published:
        """Publish one record to every node's handler. -> Published, with its `seq` in the topic. See `Publish`.

        Raises NoQuorum, Overloaded, PayloadTooLarge and InvalidRequest when it was certainly not published, Indeterminate when nobody knows: then only a retry
        with the same `message_id` is safe. With acks="all", NotDelivered when it is published and somebody lacks it.
        """
        answer: Published = await self._ask(Publish(topic, data, acks, message_id, headers, timeout))
        return answer

    async def apply(
        self, op: str, data: bytes = b"", *, session: str | None = None, number: int | None = None, timeout: float | None = None
    ) -> Applied:
        """Run the command `op` on every node's `handle_apply`, in one order. -> Applied, with the `result` of this node's handler. See `Apply`.

        Raises HandlerFailed (it counts as applied), NoQuorum, Overloaded, Indeterminate, SessionExpired, AlreadyApplied.
        """
        answer: Applied = await self._ask(Apply(op, data, session, number, timeout))
        return answer

    async def publish_many(
        self, topic: str, data: Sequence[bytes], *, acks: Acks = "quorum", timeout: float | None = None
    ) -> PublishedMany:
        """Publish all records or none, side by side in their topic. -> PublishedMany, with `first_seq` and `last_seq`. See `PublishMany`; raises as `publish`."""
        answer: PublishedMany = await self._ask(PublishMany(topic, data, acks, timeout))
        return answer

    async def write(self, op: str, data: bytes = b"", *, timeout: float | None = None) -> bytes:
        """Run `handle_write(op, data)` on the leader, whichever node this is. -> the handler's bytes.

        Raises HandlerFailed, NoQuorum (the handler did not run), Indeterminate (it may have run).
        """
        answer: bytes = await self._ask(Write(op, data, timeout))
        return answer

    async def read(self, op: str, data: bytes = b"", *, timeout: float | None = None, consistency: Consistency | None = None) -> bytes:
        """Run `handle_read(op, data)`. -> the handler's bytes. See `Read` for `consistency`; None reads on the leader.

        Raises HandlerFailed, NoQuorum, Overloaded; it can be asked again.
        """
        answer: bytes = await self._ask(Read(op, data, timeout, consistency))
        return answer

    async def status(self, *, local: bool = False, timeout: float | None = None) -> ClusterStatus:
        """The cluster as the leader sees it; local=True: as this node sees it, without asking anybody. -> ClusterStatus. A leader that does not answer is a warning
        in it, and no error.
        """
        answer: ClusterStatus = await self._ask(Status(local, timeout))
        return answer

    async def join(self, member_id: str, raft_addr: str, *, timeout: float | None = None) -> Joined:
        """Make the server `member_id` at Raft address `raft_addr` (host:port) a voter; it catches up first. On the leader only. -> Joined.

        Raises NotLeader (with the leader's address), AlreadyMember, Unreachable, NoQuorum.
        """
        answer: Joined = await self._ask(Join(member_id, raft_addr, timeout))
        return answer

    async def leave(self, member_id: str, *, timeout: float | None = None) -> Left:
        """Take the server `member_id` out of the quorum. On the leader only. -> Left. Raises NotLeader, UnknownMember, NoQuorum."""
        answer: Left = await self._ask(Leave(member_id, timeout))
        return answer

    async def transfer(self, member_id: str | None = None, *, timeout: float | None = None) -> None:
        """Hand leadership to the voter `member_id`, or to the one that has most of the log. On the leader only. See `TransferLeadership`. Raises NotLeader,
        UnknownMember, Unreachable.
        """
        await self._ask(TransferLeadership(member_id, timeout))

    transfer_leadership = transfer  # as it was called first

    async def dead_letters(
        self, topic: str | None = None, limit: int = 100, *, before: int | None = None, timeout: float | None = None
    ) -> LetterPage:
        """The latest dead letters that this node keeps, the latest first. -> LetterPage. See `DeadLetters`. Raises InvalidRequest."""
        answer: LetterPage = await self._ask(DeadLetters(topic, limit, before, timeout))
        return answer

    async def requeue(self, letter: int, *, timeout: float | None = None) -> Published:
        """Publish the record of dead letter number `letter` to its topic once more. -> Published. See `Requeue`. Raises InvalidRequest, and what `publish` does."""
        answer: Published = await self._ask(Requeue(letter, timeout))
        return answer

    def events(self, capacity: int = 1024, *, replay: bool = True) -> AsyncEvents:
        """What is so (replay), then what happens, until it is closed. See `Subscribe`. Raises InvalidRequest."""
        return AsyncEvents(lambda: self._ask(Subscribe(capacity=capacity, replay=replay)))
