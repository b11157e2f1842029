"""`/livez`, `/readyz` and `/healthz` in every state of a node's life, asked over HTTP while it is in that state."""

from __future__ import annotations

import httpx
import pytest

from coterie import Cluster, Config, Indeterminate, StorageError
from coterie.actors.disk.lmdb_env import LmdbEnvironment
from coterie.actors.node.assembly import Rooms
from coterie.actors.room_messages import RaftView
from tests.product.wait import wait_for

FREE = {"raft_addr": "127.0.0.1:0", "mem_bind": "127.0.0.1:0", "mgmt_addr": "127.0.0.1:0"}
OK = (200, "ok")


def probes(addr: str) -> dict[str, tuple[int, str]]:
    answers = {path: httpx.get(f"http://{addr}/{path}", trust_env=False, timeout=20) for path in ("healthz", "livez", "readyz")}
    return {path: (answer.status_code, answer.text) for path, answer in answers.items()}


def test_while_it_starts_runs_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, dict[str, tuple[int, str]]] = {}
    open_raft, say_good_bye = Rooms._open_raft, Rooms.say_good_bye

    def starting(rooms: Rooms, *arguments: object) -> object:
        seen["starting"] = probes(rooms.addresses["mgmt"])
        return open_raft(rooms, *arguments)  # type: ignore[arg-type]

    def stopping(rooms: Rooms, raft: RaftView, failed: bool) -> None:
        seen["stopping"] = probes(rooms.addresses["mgmt"])
        say_good_bye(rooms, raft, failed)

    monkeypatch.setattr(Rooms, "_open_raft", starting)
    monkeypatch.setattr(Rooms, "say_good_bye", stopping)
    with Cluster(Config(node_id="n1", bootstrap=True, **FREE)) as node:
        addr = node.ref.addresses()["mgmt"]
        wait_for(lambda: probes(addr)["readyz"] == OK, 10, "it leads")
        seen["running"] = probes(addr)
    assert seen == {
        "starting": {"healthz": OK, "livez": OK, "readyz": (503, "this node is starting")},
        "running": {"healthz": OK, "livez": OK, "readyz": OK},
        "stopping": {"healthz": OK, "livez": OK, "readyz": (503, "this node is stopping")},
    }


def test_without_a_leader_it_is_alive_and_not_ready() -> None:
    with Cluster(Config(node_id="n1", **FREE)) as node:
        assert probes(node.ref.addresses()["mgmt"]) == {"healthz": OK, "livez": OK, "readyz": (503, "no leader is known")}


def test_a_node_that_has_failed_wants_a_new_start(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cluster(Config(node_id="n1", bootstrap=True, data_dir=tmp_path, **FREE)) as node:
        addr = node.ref.addresses()["mgmt"]
        wait_for(lambda: probes(addr)["readyz"] == OK, 10, "it leads")

        def full(environment: LmdbEnvironment, work: object) -> None:
            raise StorageError("no space left on device")

        monkeypatch.setattr(LmdbEnvironment, "write", full)
        with pytest.raises((StorageError, Indeterminate)):
            node.publish("t", b"x")
        wait_for(lambda: probes(addr)["livez"][0] == 503, 10, "it has failed")
        told = probes(addr)
        assert told["healthz"] == OK, "as go-cluster's: the process serves"
        assert told["livez"][0] == told["readyz"][0] == 503
        assert "no space left on device" in told["livez"][1]
        assert "no space left on device" in told["readyz"][1]
