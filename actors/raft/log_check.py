"""Whether a stored Raft log is whole: every record of it is read, and what they say of each other is compared (docs/formats.md, "Raft log"). Pure.

A node reads the two ends of its log when it starts, and the rest when it is needed. This reads all: each checksum; indexes without a hole from `start` on;
terms that never
fall and are not above the hard state's; configurations that decode, and the same in both tables; `start` and `snapshot` that agree.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

import attrs

from coterie.actors.disk.findings import Findings, Progress, Reporter, Tables
from coterie.actors.disk.lmdb_env import META, unseal
from coterie.actors.raft.following import KNOWN_KINDS
from coterie.actors.raft.log import Doubt, HardState
from coterie.actors.raft.log_format import (
    KEY_DOUBT,
    KEY_HARD_STATE,
    KEY_SNAPSHOT,
    KEY_START,
    key_index,
    unpack_doubt,
    unpack_entry,
    unpack_hard_state,
    unpack_start,
)
from coterie.proto.errors import WireError
from coterie.proto.raft_codec import decode_configuration
from coterie.proto.raft_messages import CONFIGURATION, Configuration, Entry

WHERE: Final = "raft log"
STEP: Final = 4096  # entries between two words of progress

T = TypeVar("T")


@attrs.define
class LogSummary:
    """What was seen. first, last: of the entries (last is first - 1 in an empty log). kinds: entries by kind. term_at: the term of the entry that the check
    was asked for, None
    where the log does not reach it."""

    first: int = 1
    last: int = 0
    last_term: int = 0
    previous_term: int = 0
    entries: int = 0
    data_bytes: int = 0
    kinds: Counter[int] = attrs.field(factory=Counter)
    hard_state: HardState = attrs.field(factory=HardState)
    configuration_index: int = 0
    configuration: Configuration = attrs.field(factory=Configuration)
    term_at: int | None = None
    doubt: Doubt | None = None


def check_log(tables: Tables, remedy: str, term_at: int = 0) -> Findings[LogSummary]:
    """remedy: of damage. term_at: an index whose term the summary is to tell. Raises StorageError when the file cannot be read any further."""
    return (yield from _LogCheck(tables, Reporter(WHERE, remedy), term_at).run())


class _LogCheck:
    def __init__(self, tables: Tables, report: Reporter, term_at: int) -> None:
        self._tables, self._report, self._term_at = tables, report, term_at
        self._seen = LogSummary()
        self._configurations: dict[int, bytes] = {}  # of the log: index -> record

    def run(self) -> Findings[LogSummary]:
        yield from self._meta()
        yield from self._entries()
        yield from self._in_force()
        return self._seen

    def _record(self, key: bytes, unpack: Callable[[bytes], T]) -> Findings[T | None]:
        value = self._tables.get(META, key)
        if value is None:
            return None
        return (yield from self._report.opened("meta", f"its record {key.decode()}", key, value, unpack))

    def _meta(self) -> Findings[None]:
        seen, report = self._seen, self._report
        start = yield from self._record(KEY_START, unpack_start)
        hard_state = yield from self._record(KEY_HARD_STATE, unpack_hard_state)
        snapshot = yield from self._record(KEY_SNAPSHOT, unpack_start)
        seen.doubt = yield from self._record(KEY_DOUBT, unpack_doubt)
        if seen.doubt is not None:
            yield report.note(
                "doubt",
                f"it has lost entries to damage, up to {seen.doubt.last or 'one that is not known'}, and votes for nobody until a leader has made up for it",
                "start the node beside the others",
            )
        if start is not None:
            seen.first, seen.previous_term = start
            seen.last, seen.last_term = seen.first - 1, seen.previous_term
        elif self._tables.count("log"):
            yield report.note("start", "it has no record of where it begins, so it begins at entry 1")
        if hard_state is not None:
            seen.hard_state = hard_state
        elif self._tables.count("log") or seen.first > 1:
            yield report.damage("hard state", "it has entries and no hard state: this server forgot its term and its vote")
        if seen.first > 1 and snapshot is None:
            yield report.damage("start", f"it begins at entry {seen.first} and does not say what was compacted")
        elif snapshot is not None and snapshot != (seen.first - 1, seen.previous_term):
            yield report.damage(
                "start", f"it begins after entry {seen.first - 1} (term {seen.previous_term}), and says it was compacted to {snapshot}"
            )
        if self._term_at == seen.first - 1:
            seen.term_at = seen.previous_term

    def _entries(self) -> Findings[None]:
        seen, report, total = self._seen, self._report, self._tables.count("log")
        for number, (key, value) in enumerate(self._tables.rows("log"), 1):
            if number % STEP == 0:
                yield Progress(WHERE, number, total)
            if len(key) != 8:
                yield report.damage("index", f"a record has the key {key.hex()}, which is no index")
                continue
            index = key_index(key)
            if index < seen.first:
                yield report.damage("index", f"entry {index} lies before its beginning, {seen.first}")
            elif index > seen.last + 1:
                yield report.damage("index", f"entries {seen.last + 1}..{index - 1} are missing")
            seen.last = max(seen.last, index)
            yield from self._entry(index, key, value)
        yield Progress(WHERE, total, total)

    def _entry(self, index: int, key: bytes, value: bytes) -> Findings[None]:
        seen, report = self._seen, self._report
        seen.entries += 1
        body = unseal(key, value)
        if body is None:
            yield report.damage("checksum", f"entry {index} is damaged: its checksum does not fit")
            return
        try:
            entry = _strictly(index, body)
        except (ValueError, struct.error) as error:
            yield report.damage("entry", f"entry {index} is damaged: {error}")
            return
        if entry.term < seen.last_term:
            yield report.damage("term", f"entry {index} is of term {entry.term}, one before it of term {seen.last_term}: terms never fall")
        if entry.term > seen.hard_state.term:
            yield report.damage(
                "term", f"entry {index} is of term {entry.term}, and this server was never in a later one than {seen.hard_state.term}"
            )
        seen.last_term = max(seen.last_term, entry.term)
        seen.kinds[entry.kind] += 1
        seen.data_bytes += len(entry.data or b"")
        if index == self._term_at:
            seen.term_at = entry.term
        if entry.kind == CONFIGURATION:
            self._configurations[index] = value
        elif entry.kind not in KNOWN_KINDS:
            yield report.damage("entry", f"entry {index} is of kind {entry.kind}, which no server writes")

    def _in_force(self) -> Findings[None]:
        seen, report = self._seen, self._report
        below = 0
        for key, value in self._tables.rows("configurations"):
            index = key_index(key) if len(key) == 8 else 0
            body = unseal(key, value)
            try:
                if body is None:
                    raise ValueError("its checksum does not fit")
                configuration = decode_configuration(_strictly(index, body).data or b"")
            except (ValueError, struct.error, WireError) as error:
                yield report.damage("configuration", f"the configuration of entry {index} is damaged: {error}")
                continue
            yield from self._plausible(index, configuration)
            if index < seen.first:
                below += 1
            elif self._configurations.pop(index, None) != value:
                yield report.damage("configuration", f"the configuration of entry {index} is not what the entry says")
            if index >= seen.configuration_index:
                seen.configuration_index, seen.configuration = index, configuration
        for index in self._configurations:
            yield report.damage("configuration", f"the configuration of entry {index} is missing in its table")
        if below > 1:
            yield report.damage(
                "configuration", f"{below} configurations lie before its beginning, where only the last of them can be in force"
            )
        if seen.first > 1 and not below:
            yield report.damage("configuration", f"it begins at entry {seen.first} and does not say who is in the quorum")

    def _plausible(self, index: int, configuration: Configuration) -> Findings[None]:
        servers = configuration.servers
        for what, values in (("id", [server.id for server in servers]), ("address", [server.address for server in servers])):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                yield self._report.damage("configuration", f"the configuration of entry {index} has the {what} {twice[0]!r} twice")
        if not configuration.voters():
            yield self._report.damage("configuration", f"the configuration of entry {index} has no voter")


def _strictly(index: int, body: bytes) -> Entry:
    """As `unpack_entry`, which takes what is shorter than it says for empty. Raises ValueError, struct.error."""
    entry = unpack_entry(index, body)
    _, _, appended, extensions = struct.unpack_from(">BBBI", body)
    if len(entry.appended_at) != appended or len(entry.extensions or b"") != extensions:
        raise ValueError("it is shorter than it says")
    return entry
