"""A snapshot of the handler's state from another node, for a member whose own buffer does not tell how its handler came to be: the way to it.

The leader is asked first, then every other node of ours, until one has a snapshot that goes far enough. It comes block by block into a file; what does not
hold what its head says is thrown away. The callbacks run in the streams' threads.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from coterie.actors.errors import CoterieError
from coterie.actors.handler_messages import WrittenState
from coterie.actors.management.client import NodeClient
from coterie.actors.replication.buffer import StateHead
from coterie.actors.room_messages import Topology
from coterie.proto.command_state import decode_block
from coterie.proto.errors import WireError
from coterie.transport.logs import Log

Fetched = Callable[[StateHead | None, WrittenState | None], object]

LENGTH: Final = struct.Struct(">I")


class StateFetch:
    """topology: the latest. directory: for the file; None: the system's place."""

    def __init__(self, node: str, client: NodeClient, topology: Callable[[], Topology], directory: Path | None) -> None:
        self._node, self._client, self._topology, self._directory = node, client, topology, directory
        self._log = Log(f"coterie.{node}.commands", node, "commands")

    def __call__(self, at_least: int, fetched: Fetched) -> None:
        """Fetch a snapshot that goes up to command `at_least` or further. fetched: called once, with None where nobody has one."""
        topology = self._topology()
        others = sorted(topology.grpc_addr.keys() - {self._node, topology.leader_id})
        names = [topology.leader_id, *others] if topology.leader_id != self._node else others
        self._next([topology.grpc_addr[name] for name in names if name in topology.grpc_addr], at_least, fetched)

    def _next(self, addresses: list[str], at_least: int, fetched: Fetched) -> None:
        if not addresses:
            fetched(None, None)
            return
        address, *rest = addresses
        try:
            coming = _Coming(tempfile.TemporaryFile(dir=self._directory, prefix="state-"))  # noqa: SIM115 - the fetched one is the asker's to close
        except OSError as error:
            self._log.error("no file for a snapshot of the handler's state: %s", error)
            fetched(None, None)
            return

        def ended(error: Exception | None) -> None:
            written = coming.written(at_least) if error is None else None
            if written is not None and coming.head is not None:
                fetched(coming.head, written)
                return
            coming.content.close()
            reason = coming.trouble or error
            if reason is not None:
                self._log.warning("no snapshot of the handler's state from %s: %s", address, reason)
            self._next(rest, at_least, fetched)

        try:
            coming.stream = self._client.handler_state(address, at_least, coming.take, ended)
        except CoterieError as error:
            ended(error)


class _Coming:
    """What has come of one snapshot."""

    def __init__(self, content: IO[bytes]) -> None:
        self.content = content
        self.head: StateHead | None = None
        self.stream: Any = None
        self.trouble: Exception | None = None
        self._blocks = self._size = 0

    def take(self, head: tuple[int, int, int, int], block: bytes) -> None:
        if self.trouble is not None:
            return
        try:
            if self.head is None:
                self.head = StateHead(*head)
                return
            decode_block(block)
            self.content.write(LENGTH.pack(len(block)) + block)
        except (WireError, OSError) as error:
            self.trouble = error
            return
        self._blocks += 1
        self._size += len(block)

    def written(self, at_least: int) -> WrittenState | None:
        """None where it is not all of it, or does not go far enough."""
        head = self.head
        if head is None or self.trouble is not None:
            return None
        if head.index < at_least or (head.blocks, head.size) != (self._blocks, self._size):
            self.trouble = WireError(f"it goes up to command {head.index}, {self._blocks} of its {head.blocks} blocks came")
            return None
        self.content.seek(0)
        return WrittenState(self.content, head.blocks, head.size)
