"""What a campaign ran: a feature that never came about was not tested, whatever the seeds say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from coterie.actors.raft.ready import (
    BecameLeader,
    ConfigurationChanged,
    DoubtSettled,
    ElectionStarted,
    Event,
    LostLeadership,
    TransferFailed,
)

ENOUGH: Final = 1000  # seeds of a campaign after which each feature must have come about

COMMON: Final = {
    "elections": (
        "pre-vote rounds",
        "pre-votes given",
        "pre-votes refused",
        "elections",
        "votes given",
        "votes refused",
        "leaderships",
        "leaderships lost",
        "transfers begun",
        "transfers failed",
        "leaderships handed over",
        "take-overs",
    ),
    "quorum": (
        "voters added",
        "voters added back",
        "voters demoted",
        "voters removed",
        "leaders removed",
        "learners added",
        "learners promoted",
        "learners removed",
        "configurations cut off",
        "servers emptied",
        "disks lost",
        "logs damaged",
        "logs made good again",
    ),
    "snapshots": (
        "logs compacted",
        "snapshots sent",
        "snapshots lost on their way",
        "snapshots installed",
        "crashes between the halves of an installation",
        "installations finished after a crash",
    ),
    "machines": (
        "crashes",
        "unsynced writes lost",
        "writes that nobody heard of",
        "pauses",
        "disks slow",
        "disks stalled",
        "clocks at a pace of their own",
        "wall clocks set",
    ),
    "network": ("partitions", "one-way cuts", "connections reset", "requests twice", "requests late"),
}
CLIENTS: Final = {
    "raft": (
        "proposals acknowledged",
        "proposals abandoned",
        *(f"reads by {how}, {role}" for how in ("index", "lease") for role in ("leader", "follower", "learner")),
        "reads refused",
        "commands of a session proposed again",
        "commands of a session again",
        "histories linearizable",
        "operations in histories",
    ),
    "publish": (
        "proposals acknowledged",
        "proposals abandoned",
        "records published again",
        "duplicates found",
        "delivered by all",
        "not delivered by all in time",
        "questions about acknowledgements",
    ),
}


def groups(world: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The features of a world by what they are about."""
    yield from COMMON.items()
    yield "clients", CLIENTS[world]


def missing(world: str, seen: Mapping[str, int]) -> list[str]:
    return [feature for _, features in groups(world) for feature in features if not seen.get(feature)]


def of_event(event: Event) -> str:
    """What an event of the core is counted as; "" for nothing."""
    match event:
        case ElectionStarted(pre_vote=pre_vote):
            return "pre-vote rounds" if pre_vote else "elections"
        case BecameLeader():
            return "leaderships"
        case LostLeadership():
            return "leaderships lost"
        case DoubtSettled():
            return "logs made good again"
        case TransferFailed():
            return "transfers failed"
        case ConfigurationChanged():
            return "configurations in force"
    return ""
