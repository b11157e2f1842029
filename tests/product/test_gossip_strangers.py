"""Whole nodes that share a network and not a secret: who has another key, another label or none is refused, counted and named; keys change one node at a time."""

from __future__ import annotations

import base64
import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coterie import Cluster, Config
from tests.product.wait import wait_for

KEY, OTHER = (base64.b64encode(bytes((n,)) * 32).decode() for n in (1, 2))
PATIENCE = 30.0

Start = Callable[..., Cluster]


@pytest.fixture
def start() -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def begin(name: str, seed: Cluster | None = None, **fields: Any) -> Cluster:
            seeds = seed.ref.ask("addresses")["gossip"] if seed is not None else ""
            addresses = dict.fromkeys(("raft_addr", "mem_bind", "mgmt_addr"), "127.0.0.1:0")
            return stack.enter_context(Cluster(Config(node_id=name, seeds_csv=seeds, bootstrap=seed is None, **addresses, **fields)))

        yield begin


def members(cluster: Cluster) -> set[str]:
    return {member.id for member in cluster.status(local=True).members if member.state == "alive"}


def strangers(cluster: Cluster) -> dict[str, int]:
    return {reason: count for reason, count in cluster.status(local=True).dropped.items() if "strangers" in reason}


RIGHT = {"gossip_key": KEY, "cluster_name": "blue"}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "no label"),
        ({"cluster_name": "blue"}, "no key"),
        ({"gossip_key": OTHER, "cluster_name": "blue"}, "wrong key"),
        ({"gossip_key": KEY}, "no label"),
        ({"gossip_key": KEY, "cluster_name": "green"}, "wrong label"),
    ],
    ids=["nothing", "no key", "another key", "no label", "another label"],
)
def test_a_stranger_cannot_merge_in(start: Start, fields: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    first = start("n1", **RIGHT)
    friend = start("n2", first, **RIGHT)
    wait_for(lambda: members(first) == members(friend) == {"n1", "n2"}, PATIENCE, "those with the key find each other")
    stranger = start("x", first, **fields)
    wait_for(lambda: strangers(first).get(f"gossip: streams of strangers: {reason}", 0) > 0, PATIENCE, "it is counted by its reason")
    assert "n1/gossip: streams of strangers" in caplog.text and "from 127.0.0.1:" in caplog.text
    assert (members(first), members(friend), members(stranger)) == ({"n1", "n2"}, {"n1", "n2"}, {"x"})
    assert strangers(friend) == {}


def test_one_without_a_secret_refuses_one_with_a_key(start: Start) -> None:
    first = start("n1")
    stranger = start("x", first, gossip_key=KEY)
    wait_for(lambda: strangers(first).get("gossip: streams of strangers: encrypted", 0) > 0, PATIENCE, "it is counted")
    assert (members(first), members(stranger)) == ({"n1"}, {"x"})


def test_keys_change_one_node_at_a_time(start: Start) -> None:
    """Every two rings that stand beside each other in a rotation understand one another: old; old, new; new, old; new."""
    rings = [KEY, f"{KEY},{OTHER}", f"{OTHER},{KEY}", OTHER]
    for before, after in itertools.pairwise(rings):
        first = start("n1", gossip_key=before)
        second = start("n2", first, gossip_key=after)
        wait_for(lambda a=first, b=second: members(a) == members(b) == {"n1", "n2"}, PATIENCE, "both rings speak")  # type: ignore[misc]
        assert strangers(first) == strangers(second) == {}
