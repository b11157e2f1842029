"""The README's Python runs as it is written, and what it says of `Cluster`, `AsyncCluster` and pykka holds.

Several event loops, cancelling, stopping, many nodes in one process.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pykka
import pytest

from coterie import (
    AsyncCluster,
    Cluster,
    ClusterSupervisor,
    Config,
    HandlerActor,
    InvalidRequest,
    Join,
    Publish,
    Published,
    RegisterHandler,
    Status,
    StorageError,
    Subscribe,
    Write,
    aio,
)
from tests.product.wait import wait_for

README = Path(__file__).parents[2] / "README.md"
WAIT = 10.0
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)
FREE = {"raft_addr": "127.0.0.1:0", "mem_bind": "127.0.0.1:0", "mgmt_addr": "127.0.0.1:0"}


def config(name: str = "n1", **more: Any) -> Config:
    return Config(**({"node_id": name, "bootstrap": True} | FREE | more))


def default_ports_are_free() -> bool:
    for port in (9520, 7946, 17946, 17947):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("", port))
            except OSError:
                return False
    return True


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_python_block_runs_as_written(tmp_path: Path, block: str) -> None:
    if not default_ports_are_free():
        pytest.skip("the default ports are taken on this machine")
    ran = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", block],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    promised = re.findall(r"^print\(.*\)  # (.*)$", block, re.M)
    lines = ran.stdout.splitlines()
    assert [line for line in lines if line in promised] == promised, ran.stdout
    assert set(lines) - set(promised) <= {"orders.created b'42'"}


def test_there_are_blocks_to_run() -> None:
    assert BLOCKS


# -- Cluster ----------------------------------------------------------------------------------------------------------------------


class Keeper(HandlerActor):
    def __init__(self) -> None:
        super().__init__()
        self.had: list[bytes] = []

    def handle_sync(self, topic: str, data: bytes) -> None:
        self.had.append(data)

    def handle_write(self, op: str, request: bytes) -> bytes:
        if op == "slow":
            time.sleep(0.5)
        return request[::-1]

    def handle_read(self, op: str, request: bytes) -> bytes:
        return request

    def on_message(self, message: Any) -> Any:
        return list(self.had)


@pytest.fixture
def handler() -> Iterator[pykka.ActorRef[Keeper]]:
    ref = Keeper.start()
    yield ref
    ref.stop()


def test_cluster_offers_the_messages_as_methods(handler: pykka.ActorRef[Keeper]) -> None:
    with Cluster(config(), handler=handler) as cluster:
        events = cluster.events()
        assert cluster.publish("t", b"a") == Published("t", 1, cluster.publish("t", b"a2").index - 1)
        assert cluster.write("w", b"abc") == b"cba"
        assert cluster.read("r", b"abc") == b"abc"
        status = cluster.status()
        assert (status.healthy, status.leader_id, status.warnings) == (True, "n1", ())
        assert cluster.status(local=True).answered_by == "n1"
        wait_for(lambda: handler.ask("had") == [b"a", b"a2"], WAIT, "delivered")
        ref = cluster.ref
    assert not ref.is_alive()
    assert events.closed
    with pytest.raises(pykka.ActorDeadError, match="stopped"):
        cluster.publish("t", b"late")


def test_several_nodes_in_one_process(tmp_path: Path) -> None:
    handlers = [Keeper.start() for _ in range(3)]
    nodes: list[Any] = []
    try:
        nodes.append(ClusterSupervisor.start(config("n1", data_dir=tmp_path / "n1")))
        seed = nodes[0].addresses()["gossip"]
        more = {name: config(name, bootstrap=False, seeds_csv=seed, data_dir=tmp_path / name) for name in ("n2", "n3")}
        nodes += map(ClusterSupervisor.start, more.values())
        for node, handler in zip(nodes, handlers, strict=True):
            node.ask(RegisterHandler(handler))
        for node, name in zip(nodes[1:], ("n2", "n3"), strict=True):
            nodes[0].ask(Join(name, node.addresses()["raft"]))
        for node in nodes:
            wait_for(lambda node=node: node.ask(Status(local=True)).leader_id == "n1", WAIT, "all follow n1")
        futures = [node.ask(Publish("t", b"%d" % n), block=False) for n in range(20) for node in nodes]
        assert sorted(future.get(timeout=WAIT).seq for future in futures) == list(range(1, 61))
        assert nodes[2].ask(Write("w", b"abc")) == b"cba"
        for handler in handlers:
            wait_for(lambda handler=handler: len(handler.ask("had")) == 60, WAIT, "all delivered")
        assert handlers[0].ask("had") == handlers[1].ask("had") == handlers[2].ask("had")
        names = {thread.name for thread in threading.enumerate()}
        assert {"n1/raft", "n2/raft", "n3/raft", "n1/supervisor"} <= names
    finally:
        for node in reversed(nodes):
            node.stop()
        for handler in handlers:
            handler.stop()
    wait_for(lambda: not [t.name for t in threading.enumerate() if t.name.startswith(("n1/", "n2/", "n3/"))], WAIT, "no thread is left")


@pytest.mark.parametrize("handler", ["nonsense", 7, Keeper])
def test_what_is_no_handler_is_refused_and_the_node_is_stopped_again(tmp_path: Path, handler: Any) -> None:
    chosen = config(data_dir=tmp_path / "n1")
    with pytest.raises(InvalidRequest, match="running HandlerActor"):
        Cluster(chosen, handler=handler)

    async def start() -> None:
        async with AsyncCluster(chosen, handler=handler):
            raise AssertionError("it started")

    with pytest.raises(InvalidRequest, match="running HandlerActor"):
        asyncio.run(start())
    Cluster(chosen).stop()


class PlainService:
    """No actor: an object with some of the methods."""

    def handle_write(self, op: str, request: bytes) -> bytes:
        return request[::-1]


@pytest.mark.parametrize("kind", ["class", "reference", "object"])
def test_handlers_in_the_configuration(handler: pykka.ActorRef[Keeper], kind: str) -> None:
    given = {"class": Keeper, "reference": handler, "object": PlainService()}[kind]
    with Cluster(config(app_handlers=given)) as cluster:
        assert cluster.write("w", b"abc") == b"cba"
    assert handler.is_alive(), "what the application started, the application stops"


def test_callbacks_see_the_election() -> None:
    seen: list[Any] = []
    chosen = config(
        on_leader_change=seen.append,
        on_election_start=lambda: seen.append("start"),
        on_election_end=lambda info: seen.append(("end", info.id)),
    )
    with Cluster(chosen) as cluster:
        wait_for(lambda: ("end", "n1") in seen and any(getattr(info, "id", "") == "n1" for info in seen), WAIT, "the callbacks were called")
        mine = next(info for info in seen if getattr(info, "id", "") == "n1")
        assert (mine.addr, mine.term) == (cluster.ref.addresses()["mgmt"], cluster.status().term)


# -- pykka ------------------------------------------------------------------------------------------------------------------------


def test_the_reference_is_a_pykka_reference(handler: pykka.ActorRef[Keeper]) -> None:
    cluster = ClusterSupervisor.start(config())
    try:
        assert isinstance(cluster, pykka.ActorRef)
        assert cluster.is_alive()
        cluster.ask(RegisterHandler(handler))
        future = cluster.ask(Publish("t", b"a"), block=False)
        assert isinstance(future, pykka.Future)
        assert future.get(timeout=WAIT).seq == 1
        assert cluster.ask(Publish("t", b"b"), timeout=WAIT).seq == 2
        assert cluster.tell(Publish("t", b"told")) is None
        wait_for(lambda: handler.ask("had") == [b"a", b"b", b"told"], WAIT, "what was told is delivered")
        assert pykka.get_all([cluster.ask(Publish("t", b"c"), block=False) for _ in range(3)], timeout=WAIT)[2].seq == 6
        assert cluster.ask(Publish("t", b"d"), block=False).map(lambda published: published.seq * 10).get(timeout=WAIT) == 70
        with pytest.raises(pykka.Timeout):
            cluster.ask(Write("slow", b"x"), timeout=0.05)
        with pytest.raises(pykka.Timeout):
            cluster.ask(Write("slow", b"x"), block=False).get(timeout=0.05)
        with pytest.raises(ValueError, match="front door"):
            cluster.ask("nonsense")
        listener = Listener.start()
        assert cluster.ask(Subscribe(listener=listener)) is True
        listener.stop()
    finally:
        assert cluster.stop() is True
    assert not cluster.is_alive()
    for message in (Publish("t", b"x"), Status(), Write("w", b"")):
        with pytest.raises(pykka.ActorDeadError, match="stopped"):
            cluster.ask(message)
        with pytest.raises(pykka.ActorDeadError, match="stopped"):
            cluster.ask(message, block=False).get(timeout=WAIT)
        with pytest.raises(pykka.ActorDeadError, match="stopped"):
            cluster.tell(message)
    assert cluster.stop() is False


class Listener(pykka.ThreadingActor):
    """A plain pykka actor of the application's."""


def test_a_plain_pykka_actor_of_the_application_lives_beside(handler: pykka.ActorRef[Keeper]) -> None:
    other = Listener.start()
    with Cluster(config(), handler=handler):
        pass
    assert other.is_alive()
    other.stop()


def test_after_a_fork_the_reference_says_what_to_do() -> None:
    script = """
import os, sys
from coterie import ClusterSupervisor, Config, Publish
node = ClusterSupervisor.start(Config(node_id="n1", bootstrap=True, raft_addr="127.0.0.1:0", mem_bind="127.0.0.1:0", mgmt_addr="127.0.0.1:0"))
pid = os.fork()
if pid == 0:
    try:
        node.ask(Publish("t", b"x"))
    except RuntimeError as error:
        os._exit(7 if "after the fork" in str(error) else 8)
    os._exit(9)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
node.ask(Publish("t", b"x"))
node.stop()
sys.exit(code)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 7, ran.stderr


# -- asyncio ----------------------------------------------------------------------------------------------------------------------


class Heartbeat:
    """A task that only sleeps; `worst` is how long the loop once did not come round to it."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def __aenter__(self) -> Heartbeat:
        self.task = asyncio.create_task(self.beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()

    async def beat(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, time.monotonic() - before - 0.005)


def test_no_event_loop_is_blocked_by_publishing_nor_by_stopping(handler: pykka.ActorRef[Keeper], tmp_path: Path) -> None:
    async def run() -> float:
        async with Heartbeat() as heart:
            async with AsyncCluster(config(data_dir=tmp_path / "n1"), handler=handler) as cluster:
                for _ in range(5):
                    answers = await asyncio.gather(*(cluster.publish("t", b"x") for _ in range(50)))
                    assert len({answer.seq for answer in answers}) == 50
                slow = asyncio.create_task(cluster.write("slow", b"abc"))
                assert (await cluster.status()).leader_id == "n1"
                assert await slow == b"cba"
            return heart.worst

    # A stop or a slow write alone takes longer than this; so much is left for a busy machine.
    assert asyncio.run(run()) < 0.4


def test_one_node_serves_two_loops_in_two_threads(handler: pykka.ActorRef[Keeper]) -> None:
    async def publish(cluster: AsyncCluster, name: str, seqs: list[int]) -> None:
        seqs += [(await cluster.publish("t", f"{name}{n}".encode())).seq for n in range(50)]

    async def main() -> None:
        async with AsyncCluster(config(), handler=handler) as cluster:
            seqs: tuple[list[int], list[int]] = ([], [])
            other = threading.Thread(target=lambda: asyncio.run(publish(cluster, "b", seqs[1])))
            other.start()
            await publish(cluster, "a", seqs[0])
            await asyncio.to_thread(other.join, WAIT)
            assert sorted(seqs[0] + seqs[1]) == list(range(1, 101))
            assert seqs[0] == sorted(seqs[0])
            assert seqs[1] == sorted(seqs[1])

    asyncio.run(main())


def test_cancelling_an_awaited_publish_is_safe(handler: pykka.ActorRef[Keeper]) -> None:
    async def main() -> None:
        async with AsyncCluster(config(), handler=handler) as cluster:
            tasks = [asyncio.create_task(cluster.publish("t", b"%d" % n)) for n in range(40)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
            assert [outcome.seq for outcome in outcomes[1::2]] == sorted(outcome.seq for outcome in outcomes[1::2])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(cluster.write("slow", b""), 0.05)
            assert (await cluster.publish("t", b"end")).seq <= 41
            assert (await cluster.write("w", b"abc")) == b"cba"

    asyncio.run(main())
    assert handler.ask("had")[-1] == b"end"


def test_a_loop_that_ends_before_the_answer_harms_nobody(handler: pykka.ActorRef[Keeper]) -> None:
    with Cluster(config(), handler=handler) as cluster:
        shared = AsyncCluster(config())
        shared._ref = cluster.ref

        async def impatient() -> None:
            task = asyncio.create_task(shared.write("slow", b"x"))
            await asyncio.sleep(0.01)
            task.cancel()

        asyncio.run(impatient())
        assert cluster.write("w", b"abc") == b"cba"
        assert cluster.status().warnings == ()


def test_events_of_an_async_cluster() -> None:
    async def main() -> None:
        async with AsyncCluster(config(bootstrap=True)) as cluster:
            events = await cluster.events()
            reader = asyncio.create_task(anext(events, None))
            await asyncio.sleep(0)
            events.close()
            await asyncio.wait_for(reader, WAIT)
            assert events.missed == 0

    asyncio.run(main())


def test_a_start_that_is_cancelled_leaves_no_node_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on, nodes = threading.Event(), threading.Event(), []

    class Slow:
        @staticmethod
        def start(chosen: Config) -> Any:
            began.set()
            assert go_on.wait(WAIT)
            nodes.append(ClusterSupervisor.start(chosen))
            return nodes[0]

    monkeypatch.setattr(aio, "ClusterSupervisor", Slow)

    async def main() -> None:
        starting = asyncio.create_task(AsyncCluster(config()).start())
        assert await asyncio.to_thread(began.wait, WAIT)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    asyncio.run(main())
    go_on.set()
    wait_for(lambda: bool(nodes) and not nodes[0].is_alive(), WAIT, "the node that nobody has is stopped")


def test_a_start_that_is_cancelled_and_then_fails_is_said_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    began, go_on = threading.Event(), threading.Event()

    class Failing:
        @staticmethod
        def start(_: Config) -> Any:
            began.set()
            assert go_on.wait(WAIT)
            raise StorageError("the disk is gone")

    monkeypatch.setattr(aio, "ClusterSupervisor", Failing)

    async def main() -> None:
        starting = asyncio.create_task(AsyncCluster(config()).start())
        assert await asyncio.to_thread(began.wait, WAIT)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    asyncio.run(main())
    go_on.set()
    wait_for(lambda: any("failed to start" in record.getMessage() for record in caplog.records), WAIT, "the failure is in the log")


def test_what_is_started_is_not_started_twice() -> None:
    async def main() -> None:
        async with AsyncCluster(config()) as cluster:
            with pytest.raises(RuntimeError, match="started already"):
                await cluster.start()
        async with cluster:
            assert (await cluster.publish("t", b"1")).seq == 1

    asyncio.run(main())


def test_a_cluster_that_is_not_started_says_how() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="async with AsyncCluster"):
            await AsyncCluster(config()).publish("t", b"")

    asyncio.run(main())
