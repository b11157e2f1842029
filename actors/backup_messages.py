"""What the supervisor is asked for a backup of a running node, and what it answers. Data alone."""

from __future__ import annotations

from typing import IO

import attrs

from coterie.proto.backup import Header

PATIENCE = 600.0  # seconds for a snapshot to be taken


@attrs.define(frozen=True)
class TakeBackup:
    """Ask the supervisor. -> TakenBackup: everything that this node had acknowledged when it was asked. InvalidRequest: this node is in no quorum."""

    timeout: float = PATIENCE


@attrs.define(frozen=True)
class TakenBackup:
    """`proto.backup.frames(header, content)` is the file. content: at its beginning, and the taker's to close."""

    header: Header
    content: IO[bytes]
