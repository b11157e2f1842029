"""What must hold of a cluster's deliveries, whatever happened to it meanwhile. Each check raises AssertionError naming the node, the topic and the record."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.product.nodes import Delivery, Node


class Place(NamedTuple):
    """What stands at a seq."""

    index: int
    digest: str
    head: str


History = dict[str, list[Place]]  # topic -> what stands at seq 1, 2, …


def history_of(node: Node) -> History:
    """What a node's handler has had. Within one life of its process: each seq once and in order; a later life may begin again, but not with other bytes."""
    history: History = {}
    for topic, deliveries in node.deliveries().items():
        places: list[Place] = []
        last: Delivery | None = None
        for delivery in deliveries:
            where = f"{node.name}: {topic!r} seq {delivery.seq}"
            place = Place(delivery.index, delivery.digest, delivery.head)
            same_life = last is not None and last.life == delivery.life
            assert not (same_life and last is not None) or delivery.seq == last.seq + 1, f"{where} came after seq {last and last.seq}"
            if delivery.seq <= len(places):
                assert places[delivery.seq - 1] == place, f"{where} was {places[delivery.seq - 1]} before the crash and is {place}"
            else:
                assert delivery.seq == len(places) + 1, f"{where}: a hole after seq {len(places)}"
                places.append(place)
            last = delivery
        history[topic] = places
    return history


def check_same(nodes: Iterable[Node]) -> History:
    """All nodes have had the same; -> what that is."""
    histories = {node.name: history_of(node) for node in nodes}
    first, reference = next(iter(histories.items()))
    for name, history in histories.items():
        assert history.keys() == reference.keys(), f"{name} has the topics {sorted(history)}, {first} has {sorted(reference)}"
        for topic, places in history.items():
            for seq, (here, there) in enumerate(zip(places, reference[topic], strict=False), start=1):
                assert here == there, f"{topic!r} seq {seq} is {here} on {name} and {there} on {first}"
            assert len(places) == len(reference[topic]), (
                f"{topic!r} has {len(places)} records on {name} and {len(reference[topic])} on {first}"
            )
    return reference


def check_delivered_once(node: Node) -> None:
    """Nothing came to this node's handler twice, over all its lives."""
    for topic, deliveries in node.deliveries().items():
        seqs = [delivery.seq for delivery in deliveries]
        assert len(seqs) == len(set(seqs)), (
            f"{node.name}: {topic!r} came twice: {[s for s, n in collections.Counter(seqs).items() if n > 1][:5]}"
        )


def check_outcomes(
    history: History, nodes: Iterable[Node], publishers: Iterable[str], ordered: bool = True, early: bool = False
) -> dict[str, int]:
    """Every acknowledged record stands at its place, what was refused stands nowhere, nothing stands twice, and what one publisher sent to one topic is in
    its order. early: acknowledged by the leader alone, so without a seq, and it may be lost with the leader. -> how many of which outcome."""
    where: dict[tuple[str, str], int] = {}  # (topic, head) -> seq
    for topic, places in history.items():
        for seq, place in enumerate(places, start=1):
            if place.head:
                assert (topic, place.head) not in where, f"{topic!r}: {place.head} stands at seq {where[topic, place.head]} and at {seq}"
                where[topic, place.head] = seq
    counts: collections.Counter[str] = collections.Counter()
    directory = next(iter(nodes)).directory
    for publisher in publishers:
        outcome: dict[str, Any] = json.loads((directory / f"{publisher}.outcome").read_text())
        for topic, number, digest, seq, index in outcome["acked"]:
            if early:
                seq = where.get((topic, f"{publisher}:{number}"), 0)
            found = history[topic][seq - 1] if 0 < seq <= len(history.get(topic, ())) else None
            assert found is not None, f"acknowledged and lost: {publisher}:{number} in {topic!r} at seq {seq}"
            assert (found.index, found.digest) == (index, digest), (
                f"{publisher}:{number} in {topic!r} was acknowledged as {seq, index, digest} and is {found}"
            )
        for topic, number in outcome["refused"]:
            assert (topic, f"{publisher}:{number}") not in where, f"refused, and yet carried out: {publisher}:{number} in {topic!r}"
        if ordered:
            check_own_order(history, publisher)
        counts.update({kind: len(outcome[kind]) for kind in ("acked", "unknown", "refused")})
    return dict(counts)


def check_own_order(history: History, publisher: str) -> None:
    """What one publisher sent to one topic stands in the order in which it was sent."""
    for topic, places in history.items():
        before = -1
        for place in places:
            name, _, number = place.head.rpartition(":")
            if name == publisher:
                assert int(number) > before, f"{topic!r}: {publisher}:{number} stands after {publisher}:{before}"
                before = int(number)
