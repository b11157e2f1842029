"""Between the words of the wire and those of the other rooms: members, metadata, events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

from coterie.actors.errors import InvalidRequest
from coterie.actors.membership import effects
from coterie.actors.room_messages import Member, MembershipEvent
from coterie.proto.gossip_messages import ALIVE, DEAD, LEFT, META_MAX, SUSPECT
from coterie.transport.addresses import format_address

STATES: Final = {ALIVE: "alive", SUSPECT: "suspect", DEAD: "failed", LEFT: "left"}


def encode_meta(meta: Mapping[str, str]) -> bytes:
    """A JSON object of strings. InvalidRequest above 512 bytes, or when something in it is no string."""
    if not all(isinstance(part, str) for item in meta.items() for part in item):
        raise InvalidRequest(f"meta={dict(meta)!r}: keys and values must be strings")
    data = json.dumps(dict(meta), separators=(",", ":"), ensure_ascii=False).encode()
    if len(data) > META_MAX:
        raise InvalidRequest(f"meta: {len(data)} bytes as JSON, at most {META_MAX} fit; carry less, or shorter addresses")
    return data


def decode_meta(data: bytes) -> dict[str, str]:
    """The strings of a member's metadata; empty when it is not a JSON object: other programs may gossip what they like."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    return {key: value for key, value in document.items() if isinstance(value, str)}


def member(seen: effects.Member) -> Member:
    return Member(seen.name, format_address(seen.ip, seen.port), decode_meta(seen.meta), STATES[seen.state])


def members(seen: Iterable[effects.Member]) -> tuple[Member, ...]:
    return tuple(member(one) for one in seen)


def event(happened: effects.Event) -> MembershipEvent | None:
    """What the other rooms are told of; None for what concerns membership alone."""
    match happened:
        case effects.MemberJoined():
            return MembershipEvent("join", member(happened.member))
        case effects.MemberUpdated():
            return MembershipEvent("update", member(happened.member))
        case effects.MemberLeft():
            return MembershipEvent("leave", member(happened.member))
        case effects.MemberFailed():
            return MembershipEvent("failed", member(happened.member))
        case _:
            return None
