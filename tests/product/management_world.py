"""A cluster that is not there: what the management servers are tested against. It answers by messages, as the supervisor does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from coterie.actors.errors import InvalidRequest
from coterie.actors.future import LightFuture
from coterie.actors.management.service import ClusterService
from coterie.actors.messages import (
    ClusterStatus,
    Join,
    Joined,
    Leave,
    Left,
    MemberStatus,
    Publish,
    Published,
    Read,
    Status,
    TopicStatus,
    Write,
)

STATUS = ClusterStatus(
    healthy=True,
    term=7,
    leader_id="n1",
    leader_addr="10.0.0.1:17946",
    members=(
        MemberStatus("n1", "10.0.0.1:7946", {"mgmt": "10.0.0.1:17946"}, "alive", "voter", "10.0.0.1:9520", 41, None),
        MemberStatus("n2", "10.0.0.2:7946", {"mgmt": "10.0.0.2:17946"}, "alive", "voter", "10.0.0.2:9520", 40, 0.1),
    ),
    answered_by="n1",
    role="leader",
    commit_index=41,
    applied_index=41,
    last_index=42,
    topics=(TopicStatus("orders", 9, 8, 1, {"n1": 9, "n2": 7}),),
    dropped={"gossip: packets": 2},
)


class FakeCluster:
    """Remembers what it was asked. `answers[type]`: a value, an exception to fail with, a callable of the message, or PENDING."""

    PENDING = object()

    def __init__(self) -> None:
        self.arrived = threading.Condition()
        self.joins: list[str] = []
        self.forget()

    def forget(self) -> None:
        """As new."""
        self.joins.clear()
        self.asked: list[Any] = []
        self.passed_on: list[Any] = []
        self.pending: list[LightFuture] = []
        self.answers: dict[type, Any] = {
            Status: STATUS,
            Join: lambda m: Joined(m.id, m.raft_addr),
            Leave: lambda m: Left(m.id),
            Write: lambda m: m.data[::-1],
            Read: lambda m: b"read " + m.data,
            Publish: lambda m: Published(m.topic, 1, 1),
        }

    def ask(self, message: Any) -> LightFuture:
        future = LightFuture()
        answer = self.answers[type(message)]
        with self.arrived:
            self.asked.append(message)
            if answer is self.PENDING:
                self.pending.append(future)
            self.arrived.notify_all()
        if answer is self.PENDING:
            return future
        try:
            value = answer(message) if callable(answer) else answer
        except InvalidRequest as error:
            value = error
        if isinstance(value, BaseException):
            future.fail(value)
        else:
            future.set(value)
        return future

    def ask_here(self, message: Any) -> LightFuture:
        self.passed_on.append(message)
        return self.ask(message)

    def wait_asked(self, n: int = 1, timeout: float = 10.0) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.asked) >= n, timeout), f"asked {len(self.asked)} times, expected {n}"

    def service(self, **more: Any) -> ClusterService:
        settings: dict[str, Any] = {"node_id": "n1", "timeout": 5.0, "metrics": lambda: b"up 1\n", "on_join": self.joins.append, **more}
        return ClusterService(self.ask, self.ask_here, **settings)


def wait_until(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """For what gives no event: looks every 10 ms, fails after `timeout` seconds."""
    gone = threading.Event()
    for _ in range(int(timeout * 100)):
        value = condition()
        if value:
            return value
        gone.wait(0.01)
    raise AssertionError("it did not come to pass")
