"""The roster of a node over its restarts, in a data directory of its own and in one of a version that had none."""

from __future__ import annotations

from pathlib import Path

import pytest

from coterie import Cluster, ClusterStatus, Config, RosterMember
from coterie.actors.disk.data_dir import DataDir
from coterie.actors.replication.buffer_format import KEY_ROSTER
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from tests.product.nodes import free_port
from tests.product.wait import wait_for


def life(config: Config, records: int) -> ClusterStatus:
    """Start, publish, stop: the status at the end."""
    seen: list[ClusterStatus] = []
    with Cluster(config) as cluster:
        for _ in range(records):
            cluster.publish("t", b"x")

        def quiet() -> bool:
            seen[:] = [cluster.status(local=True)]
            return bool(seen[0].roster) and seen[0].applied_index == seen[0].last_index

        wait_for(quiet, 10, "everything is applied")
    return seen[0]


def take_roster_away(directory: Path) -> None:
    """As a version has left it that skipped roster commands."""
    data_dir = DataDir.open(str(directory), "n1")
    buffer = LmdbBuffer.open(data_dir.buffer_path(""), data_dir.identity)
    assert buffer.load().roster is not None
    buffer._environment.write(lambda transaction: transaction.delete(KEY_ROSTER, db=buffer._meta))
    assert buffer.load().roster is None
    buffer.close()
    data_dir.close()


@pytest.mark.parametrize("older", [False, True], ids=["of this version", "of a version without a roster"])
def test_a_restarted_node_has_its_roster_and_writes_nothing_anew(tmp_path: Path, older: bool) -> None:
    addresses = {name: f"127.0.0.1:{free_port()}" for name in ("raft_addr", "mem_bind", "mgmt_addr")}
    config = Config(node_id="n1", bootstrap=True, data_dir=str(tmp_path / "n1"), **addresses)
    first = life(config, 3)
    assert [member.id for member in first.roster] == ["n1"]
    assert first.roster[0] == RosterMember("n1", addresses["mem_bind"], first.roster[0].meta)
    assert first.roster[0].meta is not None and first.roster[0].meta["mgmt"] == addresses["mgmt_addr"]
    if older:
        take_roster_away(tmp_path / "n1")
    second = life(config, 1)
    assert second.roster == first.roster
    assert second.last_index == first.last_index + 2  # the new term's first entry, and the record
    assert second.topics[0].seq == 4
