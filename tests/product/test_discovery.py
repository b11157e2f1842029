"""Discovery with real processes: whoever comes late, moves or was lost is found without a restart of the node that looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.dns_server import dns_server
from tests.product.nodes import Node, ProcessCluster, free_port
from tests.product.wait import wait_for

PATIENCE = 60.0


def sees(node: Node, *names: str) -> None:
    """Until `node` itself sees these members alive, and no other."""

    def look() -> bool:
        return {m["id"] for m in node.status(local=True)["members"] if m["state"] == "alive"} == {node.name, *names}

    wait_for(look, PATIENCE, f"{node.name} sees {names}")


def gossip(node: Node) -> str:
    return str(node.config["mem_bind"])


@pytest.fixture
def nodes(tmp_path: Path) -> Any:
    """Makes nodes, and ends them."""
    made: list[Node] = []

    def make(name: str, seeds: str = "", **config: Any) -> Node:
        made.append(Node(tmp_path, name, seeds, handler=False, **config))
        return made[-1]

    yield make
    for node in made:
        node.kill()


def test_a_seed_that_comes_up_after_the_node_is_found_and_until_then_it_is_shown(nodes: Any) -> None:
    late = nodes("late", bootstrap=True)
    early = nodes("early", seeds=gossip(late)).start()
    wait_for(lambda: "refused" in early.get("/status")["Seeds"].get(gossip(late), ""), PATIENCE, "the attempt is shown")
    assert any("no seed answers" in warning for warning in early.get("/status")["Warnings"])
    late.start()
    sees(early, "late")
    wait_for(lambda: early.get("/status")["Seeds"] == {gossip(late): "reached"}, PATIENCE, "it is shown as reached")
    assert not any("discovery" in warning for warning in early.get("/status")["Warnings"] or ())


def test_a_file_that_changes_is_followed_and_what_is_wrong_with_it_is_shown(nodes: Any, tmp_path: Path) -> None:
    path = tmp_path / "seeds"
    first, second = nodes("first").start(), nodes("second").start()
    node = nodes("node", discovery_kind="file", file_path=str(path), disc_refresh="200ms").start()
    wait_for(
        lambda: any("cannot be read" in warning for warning in node.status(local=True)["warnings"]), PATIENCE, "a missing file is shown"
    )
    path.write_text(f"{gossip(first)}  # the first\n")
    sees(node, "first")
    assert node.get("/status")["Seeds"] == {gossip(first): "reached"}
    path.write_text(f"{gossip(first)}\nnonsense\n{gossip(second)}\n")
    sees(node, "first", "second")
    wait_for(lambda: any("line 2" in warning for warning in node.status(local=True)["warnings"]), PATIENCE, "the bad line is shown")
    path.unlink()
    wait_for(lambda: any("stay in use" in warning for warning in node.status(local=True)["warnings"]), PATIENCE, "that it is gone is shown")
    assert set(node.get("/status")["Seeds"]) == {gossip(first), gossip(second)}


def test_a_name_whose_addresses_change_is_followed(nodes: Any) -> None:
    port = free_port()
    with dns_server() as (dns, address):
        dns.set("nodes.test", "A", "127.0.0.1")
        node = nodes(
            "node",
            mem_bind=f"127.0.0.1:{port}",
            discovery_kind="dns",
            dns_names_csv="nodes.test",
            dns_port=port,
            dns_servers_csv=address,
            disc_refresh="200ms",
        ).start()
        wait_for(lambda: node.get("/status")["Seeds"] == {f"127.0.0.1:{port}": "this node"}, PATIENCE, "it finds itself")
        nodes("other", mem_bind=f"127.0.0.2:{port}").start()
        dns.set("nodes.test", "A", "127.0.0.1", "127.0.0.2")
        sees(node, "other")
        dns.fail["nodes.test"] = "SERVFAIL"
        wait_for(lambda: any("SERVFAIL" in warning for warning in node.status(local=True)["warnings"]), PATIENCE, "the failure is shown")
        assert set(node.get("/status")["Seeds"]) == {f"127.0.0.1:{port}", f"127.0.0.2:{port}"}
        dns.fail.clear()
        wait_for(lambda: not any("SERVFAIL" in warning for warning in node.status(local=True)["warnings"]), PATIENCE, "and that it is over")


def test_a_name_is_asked_as_rarely_as_its_time_to_live_says(nodes: Any) -> None:
    with dns_server() as (dns, address):
        first, second = nodes("first").start(), nodes("second").start()
        for number, node in enumerate((first, second), 1):
            dns.set(f"n{number}.test", "A", "127.0.0.1", ttl=3600)
            dns.set(f"_n{number}._udp.test", "SRV", f"0 0 {gossip(node).partition(':')[2]} n{number}.test.", ttl=3600 if number == 1 else 0)
        names = "_n1._udp.test,_n2._udp.test"
        node = nodes("node", discovery_kind="dns", dns_names_csv=names, dns_servers_csv=address, disc_refresh="100ms").start()
        sees(node, "first", "second")
        wait_for(lambda: dns.asked["_n2._udp.test", "SRV"] >= 5, PATIENCE, "a name without a time to live is asked again and again")
        assert (dns.asked["_n1._udp.test", "SRV"], dns.asked["n1.test", "A"], dns.asked["n2.test", "A"]) == (1, 1, 1)


@pytest.mark.long
def test_when_all_others_are_lost_and_come_back_elsewhere_the_survivor_finds_them(tmp_path: Path) -> None:
    """Those who come back know nobody; only the survivor's discovery leads to them."""
    with dns_server() as (dns, address):

        def name(*found: Node) -> None:
            dns.set("_gossip._udp.test", "SRV", *(f"0 0 {gossip(node).partition(':')[2]} here.test." for node in found))

        dns.set("here.test", "A", "127.0.0.1")
        cluster = ProcessCluster(tmp_path)
        survivor, *lost = cluster.nodes
        survivor.config |= {
            "discovery_kind": "dns",
            "dns_names_csv": "_gossip._udp.test",
            "dns_servers_csv": address,
            "disc_refresh": "200ms",
        }
        name(survivor, *lost)
        try:
            cluster.start()
            process = survivor.process
            cluster.leader().ask("publish", topic="t", data="before")
            for node in lost:
                node.kill()
            dns.set("_gossip._udp.test", "SRV")  # none is ready, says the service
            wait_for(
                lambda: all(m["state"] == "failed" for m in survivor.status(local=True)["members"] if m["id"] != survivor.name),
                PATIENCE,
                "the survivor has given both up",
            )
            for node in lost:
                node.config |= {"mem_bind": f"127.0.0.1:{free_port()}", "seeds_csv": ""}
                (tmp_path / node.name / "members.json").unlink()
                node.start()
            name(survivor, *lost)
            sees(survivor, *(node.name for node in lost))
            for node in lost:
                sees(node, *(other.name for other in cluster.nodes if other is not node))
            cluster.wait_whole(PATIENCE)
            assert cluster.leader().ask("publish", topic="t", data="after")["seq"] == 2
            assert survivor.process is process and survivor.running
        finally:
            cluster.stop()
