"""`AsyncCluster`: the same messages with `await`. No event loop is ever blocked, and any loop in any thread may use one node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from coterie.actors.config import Config
from coterie.actors.future import LightFuture
from coterie.actors.messages import (
    Acks,
    ClusterStatus,
    DeadLetters,
    Event,
    Join,
    Joined,
    Leave,
    Left,
    LetterPage,
    Publish,
    Published,
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
    """Events as an async iterator: `async for event in await cluster.events()`. Call `close()` when done."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    async def __anext__(self) -> Event:
        while not self.stream.closed:
            event: Event | None = await asyncio.get_running_loop().run_in_executor(None, self.stream.get, 0.5)
            if event is not None:
                return event
        raise StopAsyncIteration

    @property
    def missed(self) -> int:
        missed: int = self.stream.missed
        return missed

    def close(self) -> None:
        self.stream.close()


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

    async def write(self, op: str, data: bytes = b"", *, timeout: float | None = None) -> bytes:
        answer: bytes = await self._ask(Write(op, data, timeout))
        return answer

    async def read(self, op: str, data: bytes = b"", *, timeout: float | None = None) -> bytes:
        answer: bytes = await self._ask(Read(op, data, timeout))
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

    async def transfer_leadership(self, member_id: str | None = None, *, timeout: float | None = None) -> None:
        await self._ask(TransferLeadership(member_id, timeout))

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

    async def events(self, capacity: int = 1024) -> AsyncEvents:
        return AsyncEvents(await self._ask(Subscribe(capacity=capacity)))
