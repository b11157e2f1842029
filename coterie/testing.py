"""A cluster for the tests of a service: real nodes in this process, on free ports of the loopback address, in memory.

    from coterie.testing import LocalCluster

    with LocalCluster(handler=Orders) as cluster:
        cluster.publish("orders.created", b"42")
        cluster.wait_delivered("orders.created", b"42")
        cluster.kill(cluster.leader)
        cluster.publish("orders.created", b"43")

Nothing is mocked: gossip, Raft and publishing run over sockets as they do between machines, so what a test sees is what a service will see. It lost against a
simulated network in one respect: time is real, so a test waits (`wait_until`) and never sleeps.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeVar

from coterie.actors.config import Config
from coterie.actors.errors import CoterieError
from coterie.actors.handler import METHODS, HandlerActor
from coterie.actors.messages import Applied, Published
from coterie.cluster import Cluster

__all__ = ["LocalCluster", "LocalNode"]

ANY: Final = "127.0.0.1:0"
PATIENCE: Final = 20.0  # seconds; a busy machine that runs many tests takes its time
LOOK_EVERY: Final = 0.01

T = TypeVar("T")
Handler = type[HandlerActor] | Callable[[], object]


class LocalNode(Cluster):
    """A node of a `LocalCluster`: a `Cluster` that has a name, its own handler, and remembers what that was given.

    handler: the object that the factory made, or the reference of the handler actor; None without one.
    """

    def __init__(self, config: Config, handler: Handler | None) -> None:
        self.name = config.node_id
        self.handler: Any = None
        self._deliveries: dict[str, list[bytes]] = defaultdict(list)
        self._lock = threading.Lock()
        actor = self._handler_actor(handler)
        try:
            super().__init__(config, handler=actor)
        except BaseException:
            actor.stop()
            raise
        self._actor = actor

    def delivered(self, topic: str) -> list[bytes]:
        """What this node's handler has had and not raised on, in order."""
        with self._lock:
            return list(self._deliveries.get(topic, ()))

    def stop(self) -> None:
        super().stop()
        self._actor.stop()

    def kill(self) -> None:
        """End without a word to the others, as a process that is killed: leadership is not handed over."""
        supervisor: Any = self.ref._actor_weakref()
        if supervisor is not None:
            supervisor.takes_leave = False
        self.stop()

    def _handler_actor(self, handler: Handler | None) -> Any:
        if isinstance(handler, type) and issubclass(handler, HandlerActor):
            actor: Any = _recording(handler, self._note).start()
            self.handler = actor
            return actor
        self.handler = handler() if handler is not None else None
        return _Watched.start(self.handler, self._note)

    def _note(self, topic: str, data: bytes) -> None:
        with self._lock:
            self._deliveries[topic].append(data)


class LocalCluster:
    """`nodes` nodes named n1, n2, …, formed and healthy when the constructor returns. A context manager; `close` ends them and their threads.

    handler: a HandlerActor class, or whatever makes an object with some of `handle_write`, `handle_read` and `handle_sync`; each node gets one of its own.
    directory: where the nodes keep their state, so that one that is restarted still has it; None: in memory. config: further fields of `Config` for each node.
    """

    def __init__(
        self, nodes: int = 3, handler: Handler | None = None, *, directory: str | PathLike[str] | None = None, **config: Any
    ) -> None:
        if nodes < 1:
            raise ValueError(f"nodes={nodes}: give at least one")
        self.names: tuple[str, ...] = tuple(f"n{number}" for number in range(1, nodes + 1))
        self.nodes: dict[str, LocalNode] = {}
        self._addresses: dict[str, tuple[str, str]] = {}
        self._handler, self._config = handler, config
        self._directory = None if directory is None else Path(directory)
        try:
            self._start("n1", bootstrap=True)
            for name in self.names[1:]:
                self._start(name)
            for name in self.names[1:]:
                self._join(name)
            self.wait_healthy()
        except BaseException:
            self.close()
            raise

    # -- its nodes ------------------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> LocalNode:
        """A running node. Raises KeyError."""
        return self.nodes[name]

    @property
    def leader(self) -> LocalNode:
        """The node that leads; waits for an election to end. Raises TimeoutError."""
        return self.wait_until(self._leader, what="a leader")

    @property
    def followers(self) -> list[LocalNode]:
        leader = self.leader
        return [node for node in self.nodes.values() if node is not leader]

    def _leader(self) -> LocalNode | None:
        leading = []
        for node in list(self.nodes.values()):
            status = node.status(local=True)
            if status.role == "leader" and status.healthy:
                leading.append((status.term, node.name))
        return self.nodes[max(leading)[1]] if leading else None

    # -- what a service does --------------------------------------------------------------------------------------------------

    def publish(self, topic: str, data: bytes, **more: Any) -> Published:
        """By way of a running node, whichever leads. Arguments as in `Cluster.publish`."""
        return next(iter(self.nodes.values())).publish(topic, data, **more)

    def apply(self, op: str, data: bytes = b"", **more: Any) -> Applied:
        """By way of a running node, whose handler gives the result. Arguments as in `Cluster.apply`."""
        return next(iter(self.nodes.values())).apply(op, data, **more)

    def delivered(self, topic: str) -> dict[str, list[bytes]]:
        """By running node: what its handler has had, in order."""
        return {name: node.delivered(topic) for name, node in self.nodes.items()}

    # -- what happens to them -------------------------------------------------------------------------------------------------

    def kill(self, node: LocalNode | str) -> None:
        """End a node at once, as a crash of its machine would. The others must be a majority, or nothing can be written any more."""
        self._take(node).kill()

    def stop(self, node: LocalNode | str) -> None:
        """End a node gracefully: a leader hands over first."""
        self._take(node).stop()

    def restart(self, name: str) -> LocalNode:
        """Start a node that was killed or stopped, where it was; returns when it is a voter that lives. Without `directory` it has forgotten everything: it
        leaves the quorum and joins it anew, and its handler gets all that is retained once more."""
        if name in self.nodes or name not in self.names:
            raise ValueError(f"name={name!r}: give one of {sorted(set(self.names) - set(self.nodes))}, which do not run")
        if len(self.names) == 1:
            return self._start(name, bootstrap=True)
        forgets = self._directory is None
        if forgets:
            self.wait_until(lambda: self._left(name), what=f"{name} out of the quorum")
        node = self._start(name)
        if forgets:
            self._join(name)
        self.wait_healthy()
        return node

    def close(self) -> None:
        """End all nodes, the leader last, so that nobody is elected in vain."""
        with contextlib.suppress(CoterieError):
            leader = self._leader()
            if leader is not None:
                self.nodes[leader.name] = self.nodes.pop(leader.name)
        while self.nodes:
            self._take(next(iter(self.nodes))).kill()

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- waiting --------------------------------------------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], T | None], timeout: float = PATIENCE, what: str | Callable[[], str] = "") -> T:
        """Until `condition()` is true; its value. A CoterieError that it raises counts as not yet. Raises TimeoutError, which names `what`, after
        `timeout` seconds."""
        until = time.monotonic() + timeout
        while True:
            trouble = ""
            try:
                if value := condition():
                    return value
            except CoterieError as error:
                trouble = f" ({type(error).__name__}: {error})"
            if time.monotonic() >= until:
                wanted = what() if callable(what) else what or getattr(condition, "__name__", "the condition")
                raise TimeoutError(f"not within {timeout:g} s: {wanted}{trouble}")
            time.sleep(LOOK_EVERY)

    def wait_delivered(self, topic: str, *data: bytes, timeout: float = PATIENCE) -> None:
        """Until the handler of every running node has had each of `data` on `topic`. Raises TimeoutError."""

        def all_had() -> bool:
            return all(set(data) <= set(had) for had in self.delivered(topic).values())

        self.wait_until(all_had, timeout, lambda: f"{list(data)} delivered everywhere on {topic!r}; so far: {self.delivered(topic)}")

    def wait_healthy(self, timeout: float = PATIENCE) -> None:
        """Until every running node knows the leader, and all of them are living voters in its eyes. Raises TimeoutError."""

        def healthy() -> bool:
            leader = self._leader()
            if leader is None:
                return False
            for node in self.nodes.values():
                seen = node.status(local=True)
                voters = {member.id for member in seen.members if member.suffrage == "voter" and member.state == "alive"}
                if seen.leader_id != leader.name or not set(self.nodes) <= voters:
                    return False
            return True

        self.wait_until(healthy, timeout, f"{', '.join(self.nodes)} healthy")

    # -- within ---------------------------------------------------------------------------------------------------------------

    def _start(self, name: str, bootstrap: bool = False) -> LocalNode:
        seeds = ",".join(node.ref.addresses()["gossip"] for node in self.nodes.values())
        data_dir = "" if self._directory is None else str(self._directory / name)
        raft, gossip = self._addresses.get(name, (ANY, ANY))
        fields: dict[str, Any] = {"raft_addr": raft, "mem_bind": gossip, "mgmt_addr": ANY, "seeds_csv": seeds, "data_dir": data_dir}
        config = Config(node_id=name, **fields | {"bootstrap": bootstrap} | self._config)
        self.nodes[name] = node = LocalNode(config, self._handler)
        addresses = node.ref.addresses()
        self._addresses[name] = addresses["raft"], addresses["gossip"]
        return node

    def _join(self, name: str) -> None:
        """As often as it takes: right after a restart the others may still know the node as it was."""
        raft = self.nodes[name].ref.addresses()["raft"]
        self.wait_until(lambda: self.leader.join(name, raft), what=f"{name} in the quorum")

    def _left(self, name: str) -> bool:
        leader = self.leader
        if any(member.id == name and member.suffrage != "none" for member in leader.status(local=True).members):
            leader.leave(name)
        return True

    def _take(self, node: LocalNode | str) -> LocalNode:
        return self.nodes.pop(node if isinstance(node, str) else node.name)


def _recording(kind: type[HandlerActor], note: Callable[[str, bytes], None]) -> type[HandlerActor]:
    """`kind`, with every record noted that its `handle_sync` took."""
    wants_record = "record" in inspect.signature(kind.handle_sync).parameters

    class Recording(kind):  # type: ignore[valid-type,misc]
        def handle_sync(self, topic: str, data: bytes, record: Any = None) -> None:
            if wants_record:
                super().handle_sync(topic, data, record=record)
            else:
                super().handle_sync(topic, data)
            note(topic, data)

    Recording.__name__ = Recording.__qualname__ = kind.__name__
    return Recording


class _Watched(HandlerActor):
    """A plain object with some of the methods, or none at all; every record is noted that it took."""

    def __init__(self, target: object, note: Callable[[str, bytes], None]) -> None:
        for name in METHODS:
            if name == "handle_sync":
                continue
            if callable(getattr(target, name, None)):
                setattr(self, name, getattr(target, name))
        super().__init__()
        self._take: Any = getattr(target, "handle_sync", None)
        self._as_record = self._take is not None and "record" in inspect.signature(self._take).parameters
        self._note = note

    def handle_sync(self, topic: str, data: bytes, record: Any = None) -> None:
        if self._as_record:
            self._take(topic, data, record=record)
        elif self._take is not None:
            self._take(topic, data)
        self._note(topic, data)
