"""What waits to leave: packets, each filled up with rumours, streams and events.

Every packet carries as many rumours as fit (SWIM, section 4.1), whatever it was made for; the budget is `Settings.packet_bytes`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from coterie.actors.membership.broadcasts import MAX_PARTS, PART_BYTES, Broadcasts
from coterie.actors.membership.effects import Effects, Event, Packet, PushPullWith, StreamPing
from coterie.actors.membership.members import Members
from coterie.actors.membership.settings import Settings
from coterie.proto.gossip_messages import Message

# Type and count of a compound message; type and sum of a checksum.
COMPOUND_BYTES = 2
CRC_BYTES = 5
CRC_SINCE = 5


class Outbox:
    """`counters` counts what was refused or ignored, by reason, and what happened, by name."""

    def __init__(self, settings: Settings, members: Members, encode: Callable[[Message], bytes]) -> None:
        self.counters: Counter[str] = Counter()
        self.rumours = Broadcasts(encode)
        self._settings, self._members, self._encode = settings, members, encode
        self._packets: list[Packet] = []
        self._stream_pings: list[StreamPing] = []
        self._push_pulls: list[PushPullWith] = []
        self._events: list[Event] = []

    def send(self, address: tuple[str, int], node: str, *messages: Message) -> None:
        """A packet with these messages, and with rumours in what room is left."""
        crc = self._understands_crc(node)
        rumours: list[Message] = []
        if self.rumours:
            room = self._settings.packet_bytes - COMPOUND_BYTES - (CRC_BYTES if crc else 0)
            room -= sum(len(self._encode(message)) + PART_BYTES for message in messages)
            limit = self._settings.retransmit_limit(self._members.present())
            rumours = self.rumours.take(room, limit, MAX_PARTS - len(messages))
        if messages or rumours:
            self._packets.append(Packet(*address, node, (*messages, *rumours), crc))

    def stream_ping(self, ping: StreamPing) -> None:
        self._stream_pings.append(ping)

    def push_pull(self, address: tuple[str, int], join: bool = False) -> None:
        self._push_pulls.append(PushPullWith(*address, join))

    def event(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> Effects:
        effects = Effects(tuple(self._packets), tuple(self._stream_pings), tuple(self._push_pulls), tuple(self._events))
        for drained in (self._packets, self._stream_pings, self._push_pulls, self._events):
            drained.clear()
        return effects

    def _understands_crc(self, node: str) -> bool:
        peer = self._members.get(node) if node else None
        return peer is not None and peer.protocol_max >= CRC_SINCE
