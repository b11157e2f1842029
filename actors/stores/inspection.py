"""A check of everything that a stopped node has on disk. Reads only, changes nothing, and goes on after what it finds.

The directory itself first (whose it is, what is in it), then the replication buffer, then the Raft log, then what the two say of each other: the log must
begin not
behind what the buffer has applied, reach it, and agree with it on the term. Each room checks its own file (`raft/log_check`, `replication/buffer_check`).

`inspect` is a generator of findings and progress; the last thing it gives is the `Inspection`. What cannot be checked at all is a StorageError: a node runs
there, it is no data
directory, it cannot be read.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from coterie.actors.disk.data_dir import LOCK_FILE, NODE_FILE, looked_at, read_node
from coterie.actors.disk.findings import Checking, Finding, Progress, Reporter
from coterie.actors.disk.lmdb_env import META, Identity, Layout, unseal
from coterie.actors.disk.lmdb_view import DATA_FILE, LmdbView
from coterie.actors.errors import StorageError
from coterie.actors.raft import lmdb_log
from coterie.actors.raft.log_check import LogSummary, check_log
from coterie.actors.raft.log_format import unpack_mark
from coterie.actors.replication import lmdb_buffer
from coterie.actors.replication.buffer_check import BufferSummary, check_buffer
from coterie.actors.stores.storage import NOTE

WHERE: Final = "data directory"
MOST_OF_A_KIND: Final = 20
REMEDY: Final = (
    "take this server out of the quorum, move its data directory away and let it join again empty: the leader sends it everything; where no quorum is left "
    "without it, restore a backup"
)


@attrs.define
class Inspection:
    """What was seen; None where there was nothing to see. more: findings of a kind, by part, that were counted and not shown."""

    path: str
    identity: Identity | None = None
    created: str = ""
    log: LogSummary | None = None
    buffer: BufferSummary | None = None
    damage: int = 0
    more: Counter[tuple[str, str]] = attrs.field(factory=Counter)


def inspect(directory: Path, buffer_path: Path | None = None) -> Iterator[Finding | Progress | Inspection]:
    """buffer_path: where the buffer is, when it is not in the directory (`repl_buffer_dir`). Raises StorageError."""
    if not directory.is_dir():
        raise StorageError(f"{directory}: is no directory; remedy: name the data directory of a node")
    with looked_at(directory):
        seen = Inspection(str(directory))
        yield from limited(_inspect(directory, buffer_path or directory / "buffer", seen), seen)
        yield seen


def limited(checking: Iterator[Finding | Progress], seen: Inspection) -> Iterator[Finding | Progress]:
    """At most `MOST_OF_A_KIND` of each kind: a file of garbage has a finding for each record."""
    counts: Counter[tuple[str, str]] = Counter()
    for item in checking:
        if isinstance(item, Finding):
            seen.damage += item.damage
            counts[item.where, item.kind] += 1
            if counts[item.where, item.kind] > MOST_OF_A_KIND:
                seen.more[item.where, item.kind] += 1
                continue
        yield item


def _inspect(directory: Path, buffer_path: Path, seen: Inspection) -> Checking:
    report = Reporter(WHERE, REMEDY)
    yield from _node_file(directory, buffer_path, seen, report)
    log_path = directory / "raft"
    present = [path for path in (log_path, buffer_path) if (path / DATA_FILE).exists()]
    if not present:
        if seen.identity is None:
            raise StorageError(f"{directory}: holds neither {NODE_FILE} nor a Raft log; remedy: name the data directory of a node")
        yield report.note("empty", "it holds neither a Raft log nor a replication buffer yet: the node's first start was cut short")
        return
    seen.buffer = yield from _part(buffer_path, lmdb_buffer.LAYOUT, seen, lambda view: check_buffer(view, REMEDY))
    applied = seen.buffer.applied[0] if seen.buffer is not None else 0
    seen.log = yield from _part(log_path, lmdb_log.LAYOUT, seen, lambda view: check_log(view, REMEDY, applied))
    if seen.log is not None and seen.buffer is not None:
        yield from _together(seen.log, seen.buffer, seen.identity)


def _node_file(directory: Path, buffer_path: Path, seen: Inspection, report: Reporter) -> Checking:
    try:
        seen.identity, seen.created = read_node(directory)
    except FileNotFoundError:
        if (directory / "raft" / DATA_FILE).exists():
            yield report.damage("node.json", f"{NODE_FILE} is missing", f"restore {NODE_FILE} from a copy of the directory, or: {REMEDY}")
    except StorageError as error:
        if "is newer than" in str(error):
            raise
        yield report.damage("node.json", f"{NODE_FILE} is damaged", f"restore {NODE_FILE} from a copy of the directory, or: {REMEDY}")
    except OSError as error:
        raise StorageError(f"{directory}: {NODE_FILE} cannot be read: {error.strerror}") from None
    known = {LOCK_FILE, NODE_FILE, "raft", "buffer", "members.json", "quorum.json", NOTE, "lost+found"}
    for path in sorted(directory.iterdir()):
        if ".damaged-" in path.name:
            yield report.note("moved aside", f"{path.name} is what a start has moved aside as damaged; nothing reads it any more")
        elif path.name not in known and path != buffer_path:
            yield report.note("other files", f"{path.name} is nothing of a node's; it is left over, or somebody else's")


def _part(path: Path, layout: Layout, seen: Inspection, check: Callable[[LmdbView], Checking]) -> Checking:
    """Check one environment; its summary, None where it cannot be opened."""
    report = Reporter(layout.kind.removeprefix("coterie "), REMEDY)
    if not (path / DATA_FILE).exists():
        yield report.damage("missing", f"{path / DATA_FILE} is missing")
        return None
    if layout is lmdb_log.LAYOUT and not path.is_dir():
        return None
    try:
        view = LmdbView.open(path, layout)
    except StorageError as error:
        if isinstance(error.__cause__, PermissionError) or "Permission denied" in str(error):
            raise
        yield report.damage("file", str(error))
        return None
    with contextlib.closing(view):
        try:
            if not (yield from _whose(view, seen, report)):
                return None
            return (yield from check(view))
        except StorageError as error:
            yield report.damage("file", f"{error}; what follows there was not read")
            return None


def _whose(view: LmdbView, seen: Inspection, report: Reporter) -> Checking:
    """The records that say what the file is and whose; whether it is worth going on."""
    layout = view.layout
    if META not in view.tables():
        yield report.damage("file", f"{view.path / DATA_FILE} is no {layout.kind}, or its table of tables is damaged")
        return False
    found = {key: view.get(META, key) for key in (b"format", b"node_id", b"incarnation_id")}
    bodies = {key: unseal(key, value) if value is not None else None for key, value in found.items()}
    for key, body in bodies.items():
        if body is None:
            yield report.damage("meta", f"its record {key.decode()} is missing or damaged")
    form = bodies[b"format"]
    if form is not None:
        version, kind = int.from_bytes(form[:4]), form[4:].decode(errors="replace")
        if kind != layout.kind:
            yield report.damage("file", f"{view.path / DATA_FILE} is a {kind}, where a {layout.kind} belongs")
            return False
        if version > layout.format:
            raise StorageError(f"{layout.kind} in {view.path}: format {version} is newer than this version knows ({layout.format})")
    if seen.identity is not None:
        for key, wanted in ((b"node_id", seen.identity.node_id), (b"incarnation_id", seen.identity.incarnation_id)):
            body = bodies[key]
            if body is not None and body.decode(errors="replace") != wanted:
                yield report.damage("meta", f"it belongs to {key.decode()} {body.decode(errors='replace')!r}, the directory to {wanted!r}")
    for table in layout.databases:
        if table not in view.tables():
            yield report.damage("file", f"its table {table!r} is missing")
    return True


def _together(log: LogSummary, buffer: BufferSummary, identity: Identity | None) -> Checking:
    """What the log and the buffer say of each other; `raft/recovery` is what a node does about it at its start."""
    report = Reporter(WHERE, REMEDY)
    index, term = buffer.applied
    mark: Any = None
    if buffer.mark is not None:
        try:
            mark = unpack_mark(buffer.mark)
        except ValueError as error:
            yield report.damage("snapshot", f"the buffer's {error}")
    if mark is not None and mark.term > log.hard_state.term:
        yield report.damage(
            "snapshot",
            f"the buffer was made of a snapshot of term {mark.term}, and the log was never in a later one than {log.hard_state.term}",
        )
    elif mark is not None and mark.index > log.last and index >= mark.index:
        yield report.note(
            "snapshot",
            f"a snapshot up to entry {mark.index} is in the buffer and the log ends at {log.last}: the next start puts the log behind it",
        )
        return
    if index > log.last:
        yield report.damage("applied", f"the buffer has applied entry {index}, and the log ends at {log.last}: entries are lost")
    elif index < log.first - 1:
        yield report.damage("applied", f"the buffer has applied entry {index}, and the log begins at {log.first}: those between are gone")
    elif index and log.term_at is not None and log.term_at != term:
        yield report.damage("applied", f"the buffer has applied entry {index} of term {term}, and the log has that of term {log.term_at}")
    if identity is not None and log.configuration.servers and log.configuration.get(identity.node_id) is None:
        yield report.note(
            "configuration", f"{identity.node_id!r} is in no quorum: the configuration of entry {log.configuration_index} does not list it"
        )
