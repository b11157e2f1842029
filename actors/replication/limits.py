"""The bounds that a publisher keeps; the defaults are those of `Config`."""

from __future__ import annotations

import attrs

from coterie.actors.replication.proposals import MOST_ENTRIES


@attrs.define(frozen=True)
class Limits:
    """request_timeout: of a publish that names none, seconds. window: records per topic without acknowledgement. entry_bytes: of one Raft entry; a single
    larger record goes alone. waiting_records, waiting_bytes: the queue. entries: under way at a time. take_over_from_go: as in `Config`."""

    request_timeout: float = 10.0
    max_payload: int = 1 << 20
    window: int = 1024
    entry_bytes: int = 1 << 20
    waiting_records: int = 65_536
    waiting_bytes: int = 256 << 20
    entries: int = MOST_ENTRIES
    take_over_from_go: bool = True
