"""A node in the manner of go-cluster (`go/roster`) that is killed and comes back from its data, at the same addresses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.interop.support import LinePeer
from tests.product.nodes import free_port


class GoNode:
    """Not started yet. seeds: gossip addresses to meet at each start; evict, trailing: see the program's text."""

    def __init__(
        self, program: Path, directory: Path, name: str, seeds: list[str] | None = None, evict: bool = False, trailing: int | None = None
    ) -> None:
        self.program, self.name, self.seeds = program, name, seeds or []
        self.options = [*(["-evict"] if evict else []), *(["-trailing", str(trailing)] if trailing is not None else [])]
        self.data = directory / name
        self.data.mkdir()
        self.raft_addr, self.gossip, self.mgmt = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self._peers: list[LinePeer] = []

    @property
    def peer(self) -> LinePeer:
        return self._peers[-1]

    def start(self) -> GoNode:
        where = ["-raft", self.raft_addr, "-gossip", self.gossip, "-mgmt", self.mgmt, "-data", str(self.data)]
        self._peers.append(LinePeer(self.name, self.program, "-id", self.name, *where, *self.options))
        if self.seeds:
            self.peer.ask("meet", addrs=self.seeds)
        return self

    def kill(self) -> None:
        self.peer.kill()

    def close(self) -> None:
        for peer in self._peers:
            peer.close()

    def state(self) -> dict[str, Any]:
        return self.peer.ask("state")

    def leads(self) -> bool:
        return bool(self.peer.alive and self.state()["role"] == "Leader")

    def roster(self) -> list[dict[str, Any]]:
        """The rows of its document."""
        document = json.loads(self.peer.ask("roster")["document"])
        assert document["version"] == 1
        rows: list[dict[str, Any]] = document["members"]
        return rows
