"""The rumours that wait to be spread, at most one for each name (SWIM, section 4.1: infection-style dissemination).

A newer rumour about a member replaces the older one. Those told least often go first, among them the longest that still fits, then the
newest. A rumour that was told `retransmit limit` times has reached everybody with high probability, and is dropped.
"""

from __future__ import annotations

from collections.abc import Callable

from coterie.proto.gossip_messages import Message

# What a part costs in a compound message: its length, 2 bytes.
PART_BYTES = 2
# A compound message counts its parts in one byte.
MAX_PARTS = 255


class _Rumour:
    __slots__ = ("message", "serial", "size", "told")

    def __init__(self, message: Message, size: int, serial: int) -> None:
        self.message, self.size, self.serial, self.told = message, size, serial, 0

    def rank(self) -> tuple[int, int, int]:
        return self.told, -self.size, -self.serial


class Broadcasts:
    """`encode` gives a message's bytes on the wire; only their number is used. `serial` counts the rumours there ever were."""

    def __init__(self, encode: Callable[[Message], bytes]) -> None:
        self._encode = encode
        self._rumours: dict[str, _Rumour] = {}
        self.serial = 0

    def __len__(self) -> int:
        return len(self._rumours)

    def __contains__(self, name: str) -> bool:
        return name in self._rumours

    def add(self, name: str, message: Message) -> None:
        self.serial += 1
        self._rumours[name] = _Rumour(message, len(self._encode(message)), self.serial)

    def take(self, room: int, limit: int, parts: int = MAX_PARTS) -> list[Message]:
        """Rumours that fit into `room` bytes and `parts` parts, each told once more; `limit` tellings retire one."""
        if not self._rumours or room <= PART_BYTES or parts <= 0:
            return []
        chosen: list[Message] = []
        for name, rumour in sorted(self._rumours.items(), key=lambda item: item[1].rank()):
            if len(chosen) == parts:
                break
            cost = rumour.size + PART_BYTES
            if cost > room:
                continue
            room -= cost
            chosen.append(rumour.message)
            rumour.told += 1
            if rumour.told >= limit:
                del self._rumours[name]
        return chosen
