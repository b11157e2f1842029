"""The roster in the replicated state machine: who belongs to the cluster, as the log's AddNode and RemoveNode have it.

It is go-cluster's whole replicated state, so nodes of both kinds that share a log share it: every node that applies the same entries has the same
document, byte for byte. Like the rest of the state machine it is a pure function of the log, and `applied` says up to where. Who may be in it is
the leader's affair (`registrar`).

A roster of an older data directory, which was written while such entries were skipped, does not exist: then it begins empty, and `recovery` makes it from the log.
"""

from __future__ import annotations

from collections.abc import Mapping

from coterie.proto.roster import RosterCommand, RosterRow, decode_document, encode_document, in_order


class Roster:
    """document: what `document()` gave, None where none was ever stored. Raises WireError for another."""

    __slots__ = ("_changed", "_rows")

    def __init__(self, document: bytes | None = None) -> None:
        self._rows = {row.id: row for row in decode_document(document)} if document is not None else {}
        self._changed = document is None  # so that it is stored, and a later start need not look for it in the log

    def become(self, document: bytes | None) -> None:
        """Be what this document says, in place. Raises WireError, and is as it was."""
        rows = {row.id: row for row in decode_document(document)} if document is not None else {}
        self._rows.clear()
        self._rows.update(rows)
        self._changed = document is None

    @property
    def rows(self) -> Mapping[str, RosterRow]:
        """By id."""
        return self._rows

    def sorted(self) -> list[RosterRow]:
        """In the document's order."""
        return in_order(self._rows.values())

    def apply(self, command: RosterCommand) -> None:
        row = command.row
        before = self._rows.get(row.id)
        if command.op == "add":
            self._rows[row.id] = row
            self._changed = self._changed or row != before
        elif before is not None:
            del self._rows[row.id]
            self._changed = True

    def document(self) -> bytes:
        return encode_document(self._rows.values())

    def take_changed(self) -> bytes | None:
        """The document when it is another than at the last call."""
        changed, self._changed = self._changed, False
        return self.document() if changed else None
