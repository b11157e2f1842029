"""Rows of sessions as they are kept: in the buffer, beside the cursor, for a handler that keeps its own state; and in a snapshot of the handler's state.

In the buffer they are complete only where a row of index 0 stands among them, which no command has: it says from which command on `Sessions.at` is exact.
"""

from __future__ import annotations

from collections.abc import Iterable

from coterie.actors.errors import StorageError
from coterie.actors.replication.sessions import Outcome, Row, Sessions
from coterie.proto.command_state import Row as Values
from coterie.proto.command_state import pack_row, unpack_row
from coterie.proto.errors import WireError


def values_of(row: Row) -> Values:
    outcome = None if row.outcome is None else [row.outcome.done, row.outcome.result]
    return [row.index, row.session, row.number, outcome, row.dropped]


def row_of(values: Values) -> Row:
    index, session, number, outcome, dropped = values
    return Row(index, session, number, None if outcome is None else Outcome(*outcome), dropped)


def changes(sessions: Sessions, settled: Iterable[Row]) -> dict[int, bytes | None]:
    """What to store, since somebody last looked; `settled` are the rows whose outcome is known since then."""
    rows: dict[int, bytes | None] = {row.index: pack_row(values_of(row)) for row in (*settled, *sessions.dropped)}
    rows.update(dict.fromkeys(sessions.gone))
    if rows:
        rows[0] = _first(sessions)
    forget_changes(sessions)
    return rows


def forget_changes(sessions: Sessions) -> None:
    """Nobody stores them."""
    sessions.dropped.clear()
    sessions.gone.clear()


def everything(sessions: Sessions) -> dict[int, bytes | None]:
    """All rows, to begin with."""
    forget_changes(sessions)
    return {0: _first(sessions), **{row.index: pack_row(values_of(row)) for row in sessions.all_rows()}}


def recalled(results: list[tuple[int, bytes]], position: int) -> Sessions | None:
    """What was remembered when the command at `position` had been applied, from what the buffer has; None where it has not all of it. Raises StorageError."""
    if not results or results[0][0] != 0:
        return None
    try:
        exact_from = unpack_row(results[0][1])[2]
        return Sessions((row_of(unpack_row(data)) for _, data in results[1:]), exact_from).at(position)
    except WireError as error:  # it was valid when it was stored
        raise StorageError(
            f"a row of the commands' sessions in the buffer is not readable: {error}; remove the buffer's directory"
        ) from None


def _first(sessions: Sessions) -> bytes:
    return pack_row([0, "", sessions.exact_from, None, 0])
