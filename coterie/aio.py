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
        return self._stream.missed if self._stream is not None else 0

    def close(self) -> None:
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
        if self._ref is None:
            raise RuntimeError("the cluster is not started: use 'async with AsyncCluster(config)', or 'await cluster.start()'")
        return self._ref

    async def start(self) -> AsyncCluster:
        self._ref = await asyncio.get_running_loop().run_in_executor(None, ClusterSupervisor.start, self.config)
        if self._handler is not None:
            try:
                await self.register(self._handler)
            except BaseException:  # also when it is cancelled: nobody would stop the node
                await self.stop()
                raise
        return self

    async def stop(self) -> None:
        if self._ref is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._ref.stop)

    async def __aenter__(self) -> AsyncCluster:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _ask(self, message: Any) -> Any:
        return await resolved(self.ref.ask(message, block=False))

    async def register(self, handler: Any) -> None:
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
        answer: Published = await self._ask(Publish(topic, data, acks, message_id, headers, timeout))
        return answer

    async def apply(
        self, op: str, data: bytes = b"", *, session: str | None = None, number: int | None = None, timeout: float | None = None
    ) -> Applied:
        """Run `handle_apply` on every node, in log order. See `Apply`. Raises HandlerFailed, NoQuorum, Overloaded, Indeterminate, SessionExpired."""
        answer: Applied = await self._ask(Apply(op, data, session, number, timeout))
        return answer

    async def publish_many(
        self, topic: str, data: Sequence[bytes], *, acks: Acks = "quorum", timeout: float | None = None
    ) -> PublishedMany:
        answer: PublishedMany = await self._ask(PublishMany(topic, data, acks, timeout))
        return answer

    async def write(self, op: str, data: bytes = b"", *, timeout: float | None = None) -> bytes:
        answer: bytes = await self._ask(Write(op, data, timeout))
        return answer

    async def read(self, op: str, data: bytes = b"", *, timeout: float | None = None, consistency: Consistency | None = None) -> bytes:
        answer: bytes = await self._ask(Read(op, data, timeout, consistency))
        return answer

    async def status(self, *, local: bool = False, timeout: float | None = None) -> ClusterStatus:
        answer: ClusterStatus = await self._ask(Status(local, timeout))
        return answer

    async def join(self, member_id: str, raft_addr: str, *, timeout: float | None = None) -> Joined:
        answer: Joined = await self._ask(Join(member_id, raft_addr, timeout))
        return answer

    async def leave(self, member_id: str, *, timeout: float | None = None) -> Left:
        answer: Left = await self._ask(Leave(member_id, timeout))
        return answer

    async def transfer(self, member_id: str | None = None, *, timeout: float | None = None) -> None:
        """See `TransferLeadership`."""
        await self._ask(TransferLeadership(member_id, timeout))

    transfer_leadership = transfer  # as it was called first

    async def dead_letters(
        self, topic: str | None = None, limit: int = 100, *, before: int | None = None, timeout: float | None = None
    ) -> LetterPage:
        """See `DeadLetters`: the latest first."""
        answer: LetterPage = await self._ask(DeadLetters(topic, limit, before, timeout))
        return answer

    async def requeue(self, letter: int, *, timeout: float | None = None) -> Published:
        """Publish a dead letter's record to its topic once more. See `Requeue`."""
        answer: Published = await self._ask(Requeue(letter, timeout))
        return answer

    def events(self, capacity: int = 1024, *, replay: bool = True) -> AsyncEvents:
        """What is so (replay), then what happens. See `Subscribe`."""
        return AsyncEvents(lambda: self._ask(Subscribe(capacity=capacity, replay=replay)))
