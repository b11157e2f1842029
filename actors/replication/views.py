"""What the room shows of itself: the publisher's part and delivery's, put together."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from coterie.actors.future import LightFuture
from coterie.actors.messages import RosterMember, TopicStatus
from coterie.actors.replication.messages import DeliveryView, GetDeliveryView
from coterie.actors.replication.state_machine import StateMachine
from coterie.actors.room_messages import ReplicationView


class TopicRow(NamedTuple):
    """The publisher's part of a topic. acked: {node: seq}, where this node leads."""

    topic: str
    seq: int
    retained_from: int
    acked: dict[str, int]


def answer_view(
    reply: LightFuture, delivery: Any, rows: list[TopicRow], left_out: int, machine: StateMachine, waiting: int, counters: Mapping[str, int]
) -> None:
    """Resolve `reply` with a ReplicationView, when delivery (its reference) has said its part. left_out: topics without a row; waiting: records in the
    publisher's queue."""
    applied, mine = machine.applied[0], dict(counters)
    roster = tuple(RosterMember(row.id, row.addr, None if row.meta is None else dict(row.meta)) for row in machine.roster.sorted())
    asked: LightFuture = delivery.ask(GetDeliveryView([row.topic for row in rows]), block=False)

    def complete() -> None:
        found = asked.get() if asked.error is None else DeliveryView({}, {}, (f"delivery does not answer: {asked.error}",))
        topics = tuple(TopicStatus(row.topic, row.seq, found.delivered.get(row.topic, 0), row.retained_from, row.acked) for row in rows)
        view = ReplicationView(
            topics, applied, waiting, {**mine, **found.counters}, found.warnings, roster, found.failing, found.dead_letters, left_out
        )
        with contextlib.suppress(Exception):  # the asker may have given up and resolved its future itself
            reply.set(view)

    asked.on_done(complete)
