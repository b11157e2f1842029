"""The ceiling: what the parts alone can do on this machine, with no consensus on them.

A leader actor batches proposals, writes them to LMDB with full sync and streams them as msgpack over TCP to two followers, each a process of
its own, which write them to LMDB with full sync and acknowledge. A proposal is done when two of the three have it. No terms, no elections, no retries, no
errors: everything a cluster adds is measured by its ratio to this, in the same run.

`bare`: each proposal is an entry, as commands are. `packed`: all that wait become one entry, as publishes do, and each node hands every record to a
handler in another actor. `python -m benchmarks.ceiling [--packed]`.
"""

from __future__ import annotations

import queue
import shutil
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import lmdb
import msgpack
import pykka

from benchmarks import common
from coterie.actors.future import LightFuture

INDEX = struct.Struct(">Q")
MODULE = "benchmarks.ceiling"


def handle(topic: bytes, data: bytes) -> None:
    """The user's handler, which does nothing."""


class Storage:
    def __init__(self, path: str) -> None:
        self.environment = lmdb.open(path, map_size=1 << 32, max_dbs=1, sync=True, metasync=True)
        self.database = self.environment.open_db(b"log")

    def append(self, entries: list[tuple[int, bytes]]) -> None:
        with self.environment.begin(write=True, db=self.database) as transaction:
            transaction.cursor().putmulti([(INDEX.pack(index), data) for index, data in entries], append=True)


class PlainActor(pykka.ThreadingActor):
    """pykka with the cheap inbox and nothing else."""

    use_daemon_thread = True

    @staticmethod
    def _create_actor_inbox() -> Any:
        return queue.SimpleQueue()


class Delivery(PlainActor):
    def on_receive(self, message: Any) -> None:
        for data in message:
            for topic, records in msgpack.unpackb(data, raw=True):
                for record in records:
                    handle(topic, record)


class Leader(PlainActor):
    def __init__(self, storage: Storage, outboxes: list[Any], packed: bool) -> None:
        super().__init__()
        self.storage, self.outboxes, self.packed = storage, outboxes, packed
        self.delivery = Delivery.start()
        self.waiting: list[tuple[str, bytes, LightFuture]] = []
        self.open: dict[int, tuple[list[LightFuture], bytes]] = {}
        self.dirty = False
        self.last = self.committed = 0
        self.match = [0, 0, 0]

    def on_receive(self, message: Any) -> None:
        if message[0] == "propose":
            self.waiting.append(message[1:])
            if not self.dirty:
                self.dirty = True
                self.actor_ref.tell(("flush",))
        elif message[0] == "flush":
            self.flush()
        else:
            self.match[message[1]] = message[2]
            self.advance()

    def flush(self) -> None:
        batch, self.waiting, self.dirty = self.waiting, [], False
        first = self.last + 1
        if self.packed:
            topics: dict[str, list[bytes]] = {}
            for topic, data, _ in batch:
                topics.setdefault(topic, []).append(data)
            packed = msgpack.packb(list(topics.items()), use_bin_type=False)
            entries = [(first, packed)]
            self.open[first] = ([future for _, _, future in batch], packed)
        else:
            entries = [(first + offset, data) for offset, (_, data, _) in enumerate(batch)]
            for (index, data), (_, _, future) in zip(entries, batch, strict=True):
                self.open[index] = ([future], data)
        self.last = entries[-1][0]
        fields = {"AppendedAt": b"", "Data": b"", "Extensions": b"", "Index": 0, "Term": 1, "Type": 0}
        request = {
            "Entries": [fields | {"Data": data, "Index": index} for index, data in entries],
            "Leader": b"leader",
            "LeaderCommitIndex": self.committed,
            "PrevLogEntry": first - 1,
            "PrevLogTerm": 1,
            "Term": 1,
        }
        wire = msgpack.packb(request, use_bin_type=False)
        for outbox in self.outboxes:
            outbox.put(wire)
        self.storage.append(entries)
        self.match[2] = self.last
        self.advance()

    def advance(self) -> None:
        agreed = sorted(self.match)[1]
        while self.committed < agreed:
            self.committed += 1
            futures, data = self.open.pop(self.committed)
            for future in futures:
                future.set(self.committed)
            if self.packed:
                self.delivery.tell([data])


class Follower(PlainActor):
    def __init__(self, storage: Storage, connection: socket.socket, packed: bool) -> None:
        super().__init__()
        self.storage, self.connection, self.packed = storage, connection, packed
        self.delivery = Delivery.start()

    def on_receive(self, request: Any) -> None:
        entries = [(entry[b"Index"], entry[b"Data"]) for entry in request[b"Entries"]]
        self.storage.append(entries)
        self.connection.sendall(msgpack.packb({"LastLog": entries[-1][0], "Success": True, "Term": 1}))
        if self.packed:
            self.delivery.tell([data for _, data in entries])


def received(connection: socket.socket) -> Iterator[Any]:
    unpacker = msgpack.Unpacker(raw=True, max_buffer_size=1 << 28)
    while chunk := connection.recv(1 << 20):
        unpacker.feed(chunk)
        yield from unpacker


def tuned(connection: socket.socket) -> socket.socket:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def follow(path: str, packed: bool) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    connection = tuned(listener.accept()[0])
    follower = Follower.start(Storage(path), connection, packed)
    for request in received(connection):
        follower.tell(request)


def send_all(connection: socket.socket, outbox: Any) -> None:
    while True:
        connection.sendall(outbox.get())


def take_acks(connection: socket.socket, number: int, leader: Any) -> None:
    for answer in received(connection):
        leader.tell(("ack", number, answer[b"LastLog"]))


def main() -> None:
    packed = "--packed" in sys.argv
    if packed:
        sys.argv.remove("--packed")
    options = common.arguments()
    if options.follower:
        follow(options.follower, packed)
        return
    directory = tempfile.mkdtemp(prefix="ceiling-")
    children = [common.Child(MODULE, f"{directory}/follower{n}", *(["--packed"] * packed)) for n in (0, 1)]
    try:
        connections = [tuned(socket.create_connection(("127.0.0.1", int(child.hear())))) for child in children]
        outboxes: list[Any] = [queue.SimpleQueue() for _ in connections]
        leader = Leader.start(Storage(f"{directory}/leader"), outboxes, packed)
        for number, (connection, outbox) in enumerate(zip(connections, outboxes, strict=True)):
            threading.Thread(target=send_all, args=(connection, outbox), daemon=True).start()
            threading.Thread(target=take_acks, args=(connection, number, leader), daemon=True).start()
        payload = b"x" * options.payload

        def send() -> LightFuture:
            future = LightFuture()
            leader.tell(("propose", "topic", payload, future))
            return future

        common.report({in_flight: common.drive(send, in_flight, count) for in_flight, count in common.counted(options)})
    finally:
        for child in children:
            child.kill()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
