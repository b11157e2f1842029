"""What a check of stored state says: findings, and how far it is. Data alone; the rooms' checks make them, `inspection` gathers them.

A check is a generator of `Finding` and `Progress` over a read-only view, and returns a summary of what it saw. It goes on after what it finds, as far as
that makes sense,
so that one run tells all.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

import attrs

from coterie.actors.disk.lmdb_env import unseal
from coterie.proto.errors import WireError

T = TypeVar("T")


@attrs.define(frozen=True)
class Finding:
    """where: the part it is about. kind: what sort of thing, the same for all of that sort. damage: False for what is only worth knowing. remedy: what to
    do."""

    where: str
    kind: str
    what: str
    remedy: str = ""
    damage: bool = True


class Progress(NamedTuple):
    """`done` of `total` records of a part are checked."""

    where: str
    done: int
    total: int


Findings = Generator[Finding | Progress, None, T]
Checking = Findings[Any]


class Tables(Protocol):
    """Stored tables as they stand, read only. Each raises StorageError where the file itself cannot be read."""

    def rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """All records in the order of their keys."""
        ...

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def count(self, table: str) -> int: ...


class Reporter:
    """Findings of one part, with the remedy that is the same for nearly all of them."""

    def __init__(self, where: str, remedy: str) -> None:
        self.where, self.remedy = where, remedy

    def damage(self, kind: str, what: str, remedy: str = "") -> Finding:
        return Finding(self.where, kind, what, remedy or self.remedy)

    def note(self, kind: str, what: str, remedy: str = "") -> Finding:
        return Finding(self.where, kind, what, remedy, damage=False)

    def opened(self, kind: str, what: str, key: bytes, value: bytes, unpack: Callable[[bytes], T]) -> Findings[T | None]:
        """The record under `key`, unsealed and unpacked; None after a finding."""
        body = unseal(key, value)
        try:
            if body is not None:
                return unpack(body)
            problem = "its checksum does not fit"
        except (ValueError, struct.error, WireError) as error:
            problem = str(error)
        yield self.damage(kind, f"{what} is damaged: {problem}")
        return None
