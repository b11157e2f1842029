"""Make tests/data/data_dir_used, what a node that was used leaves behind, which every later version must open and go on from.

    python -m tools.make_data_dir_used [directory]

Beside data_dir_v1, which has the tables of format 1, this one has what came to them without a change of the format: commands with sessions, a snapshot of the
handler's state, dead letters, message ids, the cluster's id. It was made once and is kept; make it again only into another directory, to compare, or on
another platform. tests/product/test_used_directory.py says what stands in it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from coterie import Cluster, Config, HandlerActor

HERE = Path(__file__).resolve().parent.parent / "tests" / "data" / "data_dir_used"
NODE = "n1 نود"
RECORDS = [b"record %d" % number for number in range(1, 6)]
MESSAGE_ID = "order-17"
SESSION = "client-1"
COMMANDS = [b"%d" % number for number in range(1, 9)]  # of the session, and then one without


class Sum(HandlerActor):
    """Adds up commands; fails on a record that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.had: list[tuple[str, bytes]] = []

    def handle_sync(self, topic: str, data: bytes) -> None:
        if data == b"bad":
            raise ValueError("a bad record")
        self.had.append((topic, data))

    def handle_apply(self, index: int, op: str, data: bytes) -> bytes:
        self.total += int(data)
        return b"%d" % self.total

    def handle_read(self, op: str, request: bytes) -> bytes:
        return b"%d" % self.total

    def handle_snapshot(self) -> Iterator[bytes]:
        yield b"%d" % self.total

    def handle_restore(self, chunks: Iterator[bytes]) -> None:
        self.total = int(b"".join(chunks))


def open_node(directory: Path, handler: HandlerActor | None = None, bootstrap: bool = False) -> Cluster:
    """A node in `directory`, at free addresses. A snapshot is taken after every five commands."""
    anywhere = "127.0.0.1:0"
    config = Config(
        node_id=NODE,
        data_dir=str(directory),
        bootstrap=bootstrap,
        raft_addr=anywhere,
        mem_bind=anywhere,
        mgmt_addr=anywhere,
        repl_retry=0.05,
        repl_attempts=2,
        command_snapshot_every=5,
    )
    return Cluster(config, handler)


def make(directory: Path) -> None:
    handler = Sum.start()
    try:
        with open_node(directory, handler, bootstrap=True) as cluster:
            for number, record in enumerate(RECORDS):
                cluster.publish("orders", record, headers={"number": str(number)})
            cluster.publish("orders", b"once", message_id=MESSAGE_ID)
            cluster.publish("سفارش", b"bad")
            cluster.publish_many("many", RECORDS)
            for number, data in enumerate(COMMANDS, 1):
                cluster.apply("add", data, session=SESSION, number=number)
            cluster.apply("add", b"100")
            _wait(lambda: bool(cluster.dead_letters().letters))
            _wait(lambda: all(topic.delivered == topic.seq for topic in cluster.status().topics))
    finally:
        handler.stop()


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the node does not come to it within 20 s")
        time.sleep(0.02)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    make(target)
    for name in ("LOCK", "raft/lock.mdb", "buffer/lock.mdb"):
        (target / name).unlink(missing_ok=True)
