"""`publish_many` on real nodes, plain and with `await`: one call, one entry, the same places on every node."""

from __future__ import annotations

import asyncio
from pathlib import Path

from coterie import AsyncCluster, Config, HandlerActor, PublishMany
from coterie.testing import LocalCluster
from tests.product.wait import wait_for

ANYWHERE = dict.fromkeys(("raft_addr", "mem_bind", "mgmt_addr"), "127.0.0.1:0")


def test_what_several_nodes_publish_at_once_stays_together_on_every_node() -> None:
    with LocalCluster() as cluster:
        calls = [(node, [f"{node.name}-{call}-{n}".encode() for n in range(40)]) for call in range(20) for node in cluster.nodes.values()]
        futures = [node.ref.ask(PublishMany("t", data), block=False) for node, data in calls]
        places = {future.get(timeout=60).first_seq: data for future, (_, data) in zip(futures, calls, strict=True)}
        assert sorted(places) == list(range(1, 40 * len(calls), 40))
        cluster.publish("t", b"last")
        cluster.wait_delivered("t", b"last")
        expected = [record for first in sorted(places) for record in places[first]]
        assert cluster.delivered("t") == {name: [*expected, b"last"] for name in cluster.nodes}


def test_with_await_and_after_a_restart_the_records_are_where_they_were(tmp_path: Path) -> None:
    class Keeper(HandlerActor):
        def __init__(self) -> None:
            super().__init__()
            self.had: list[tuple[int, bytes]] = []

        def handle_sync(self, topic: str, data: bytes, record: object = None) -> None:
            self.had.append((record.seq, data))  # type: ignore[attr-defined]

    handler = Keeper.start()
    keeper = handler._actor_weakref()
    assert keeper is not None

    async def run(registered: bool) -> list[int]:
        config = Config(node_id="n1", bootstrap=True, data_dir=tmp_path, **ANYWHERE)
        async with AsyncCluster(config, handler if registered else None) as cluster:
            first = await cluster.publish_many("t", [b"a", b"b"])
            last = await cluster.publish("t", b"c")
            if registered:
                await asyncio.to_thread(wait_for, lambda: len(keeper.had) == 6, 60.0, "the handler has had all")
            return [first.first_seq, first.last_seq, last.seq]

    try:
        assert asyncio.run(run(False)) == [1, 2, 3]
        assert asyncio.run(run(True)) == [4, 5, 6]
        assert keeper.had == [(1, b"a"), (2, b"b"), (3, b"c"), (4, b"a"), (5, b"b"), (6, b"c")]
    finally:
        handler.stop()
