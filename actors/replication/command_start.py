"""Where commands go on when a handler is registered: a decision, from what the handler says and from what this node has.

| the handler's state goes up to `index` | and this node | then |
|---|---|---|
| where commands stand | knows the sessions there | it goes on |
| elsewhere, and it keeps its state itself | knows the sessions at the lesser of the two | from there; what the handler has is decided, and not given again |
| below a snapshot of it that is kept here, and it can be restored | | it is restored, and goes on behind the snapshot |
| at a snapshot, or beyond | | from the snapshot; what the handler has is decided, and not given again |
| anywhere else | | from the first command on |

Sessions are known only where they were made by deciding every command before: a handler that began somewhere else would decide otherwise than the other nodes do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from coterie.actors.handler_messages import CommandSupport
from coterie.actors.replication.sessions import Sessions


class Start(NamedTuple):
    """Go on behind `position` with `sessions`; the handler has had the commands up to `had`. sessions None: from the snapshot."""

    position: int
    sessions: Sessions | None
    had: int
    restore: bool = False


def where_to_begin(
    index: int, support: CommandSupport, position: int, sessions: Callable[[int], Sessions | None] | None, snapshot: int
) -> Start:
    """index: what the handler says. position: where commands stand; sessions: what was remembered at an index up to there, None where this node does not know
    it. snapshot: the last command in the snapshot that is kept, 0 for none."""
    if sessions is not None and (support.keeps or index == position):
        at = min(index, position)
        known = sessions(at)
        if known is not None:
            return Start(at, known, index)
    if snapshot > index and support.restores:
        return Start(snapshot, None, snapshot, restore=True)
    if 0 < snapshot <= index:
        return Start(snapshot, None, index)
    return Start(0, Sessions(), index)
