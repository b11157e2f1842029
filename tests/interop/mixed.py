"""What tests of a quorum of both kinds share: who leads, how the leadership gets to the other kind, and what both have in their logs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from coterie.actors.disk.data_dir import DataDir
from coterie.actors.raft.lmdb_log import LmdbLog
from tests.interop.go_node import GoNode
from tests.product.nodes import CommandFailed, Node, ProcessCluster
from tests.product.wait import wait_for

Rows = list[dict[str, Any]]


def roster(node: Node) -> Rows:
    """As this node itself has it, in the words of the other side."""
    return [{"ID": row["id"], "Addr": row["addr"], "Meta": row["meta"]} for row in node.status(local=True)["roster"]]


def wait_rosters(nodes: list[Node], go: list[GoNode], names: set[str], within: float = 20) -> Rows:
    """Until all of them have the same roster, and these names are in it."""
    seen: list[Rows] = []

    def agree() -> bool:
        seen[:] = [*map(roster, nodes), *(node.roster() for node in go)]
        return all(rows == seen[0] for rows in seen) and {row["ID"] for row in seen[0]} == names

    try:
        wait_for(agree, within, "the rosters agree", every=0.1)
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen}") from None
    return seen[0]


def join(leader: Node, go: GoNode) -> None:
    """Once the gossip knows it."""
    wait_for(lambda: any(m["id"] == go.name for m in leader.status(local=True)["members"]), 15, f"{leader.name} sees {go.name}")
    assert leader.post_json("/join", id=go.name, raftAddr=go.raft_addr) == {"accepted": True}


def who_leads(cluster: ProcessCluster, *go: GoNode, within: float = 20) -> Node | GoNode:
    """Whoever says so of itself."""
    found: list[Node | GoNode] = []

    def look() -> bool:
        for node in cluster.others():
            with contextlib.suppress(CommandFailed):
                if node.status(local=True)["role"] == "leader":
                    found[:] = [node]
        found.extend(node for node in go if node.leads())
        del found[1:]
        return bool(found)

    wait_for(look, within, "somebody leads")
    return found[0]


def make_go_lead(cluster: ProcessCluster, go: GoNode, patience: float = 20) -> None:
    """Hand the leadership to the Go node. A hand-over may come too early for it (it is still catching up, or not connected), and is then asked for again."""
    deadline = time.monotonic() + patience
    while not go.leads():
        assert time.monotonic() < deadline, f"{go.name} was handed the leadership for {patience} s and does not lead: {go.state()}"
        mark = go.peer.mark()
        try:
            cluster.leader().ask("transfer", id=go.name, timeout=3)
        except CommandFailed as error:
            assert error.name in ("Unreachable", "NotLeader"), error
            continue
        with contextlib.suppress(AssertionError):
            go.peer.wait_for("role", lambda line: line["role"] == "Leader", within=1.0, since=mark)


# -- logs of servers that do not run ------------------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """An entry as it is on a disk; data: its SHA-256."""

    index: int
    term: int
    kind: int
    data: str


def stored_by_ours(node: Node) -> list[Stored]:
    directory = DataDir.open(node.config["data_dir"], node.name)
    try:
        log = LmdbLog.open(directory.raft_path, directory.identity)
        try:
            found: list[Stored] = []
            at = log.first_index
            while at <= log.last_index:
                entries = log.entries(at, log.last_index, 1 << 20)
                found += [Stored(e.index, e.term, e.kind, hashlib.sha256(e.data or b"").hexdigest()) for e in entries]
                at = entries[-1].index + 1
            return found
        finally:
            log.close()
    finally:
        directory.close()


def stored_by_go(programs: Path, node: GoNode) -> list[Stored]:
    ran = subprocess.run([programs / "dump", "-data", str(node.data)], capture_output=True, text=True, timeout=60, check=True)
    rows = map(json.loads, ran.stdout.splitlines())
    return [Stored(row["index"], row["term"], row["type"], row["data"]) for row in rows]


def same_logs(logs: dict[str, list[Stored]]) -> int:
    """Entry by entry, where more than one has it. -> how many entries the longest has. AssertionError names server and entry."""
    by_index: dict[int, tuple[str, Stored]] = {}
    for name, log in logs.items():
        assert [entry.index for entry in log] == list(range(log[0].index, log[0].index + len(log))), f"{name}: its log has a hole"
        for entry in log:
            other, known = by_index.setdefault(entry.index, (name, entry))
            assert entry == known, f"entry {entry.index} is {entry} at {name} and {known} at {other}"
    ends = {name: log[-1].index for name, log in logs.items()}
    assert len(set(ends.values())) == 1, f"the logs end at {ends}"
    return len(by_index)
