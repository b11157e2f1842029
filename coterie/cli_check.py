"""`clusterctl check`: is what a stopped node has on disk whole? Nothing is changed.

The reading is done by a process of its own (`check_reader`), whose end by a signal is damage of the file that it read. Progress goes to standard error.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from coterie.cli_ask import as_table, say
from coterie.cli_errors import REFUSED, UNUSABLE, WELL, CommandError

if TYPE_CHECKING:
    from rich.console import RenderableType

Document = dict[str, Any]

READER: Final = [sys.executable, "-m", "coterie.check_reader"]


def run(path: str, buffer_dir: str | None, output: str | None) -> int:
    """The command; its exit code: 0 sound, 1 damaged. path: a data directory, or the file of a backup. Raises CommandError (2) when it cannot be checked."""
    if Path(path).is_file():
        from coterie.cli_backup_view import check_backup, view_backup

        document, shown = check_backup(Path(path)), view_backup
    else:
        document, shown = check_directory(Path(path), Path(buffer_dir) if buffer_dir else None, progress()), view
    if as_table(output):
        from coterie.cli_tables import show

        show(shown(document))
    else:
        say(document)
    return WELL if document["sound"] else REFUSED


def check_directory(path: Path, buffer_dir: Path | None, tell: Callable[[str, int, int], None]) -> Document:
    """What was found, and what was seen. tell(part, done, total): how far it is. Raises CommandError."""
    findings: list[Document] = []
    end: Document = {"path": str(path), "node": None, "created": None, "damage": 0, "not_shown": [], "raft": None, "buffer": None}
    for what, value in _read(path, buffer_dir, findings):
        if what == "finding":
            findings.append(value)
        elif what == "progress":
            tell(*value)
        elif what == "refused":
            raise CommandError(value, UNUSABLE)
        else:
            end = value
    return {"sound": not any(finding["damage"] for finding in findings), **end, "findings": findings}


def _read(path: Path, buffer_dir: Path | None, findings: list[Document]) -> Iterator[tuple[str, Any]]:
    words = [*READER, str(path), *([str(buffer_dir)] if buffer_dir else [])]
    where = "data directory"
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        try:
            for line in reader.stdout:
                what, value = next(iter(json.loads(line).items()))
                where = value[0] if what == "progress" else where
                yield what, value
        except BaseException:
            reader.kill()
            raise
    if reader.returncode < 0:
        name = signal.Signals(-reader.returncode).name
        yield (
            "finding",
            {
                "where": where,
                "kind": "file",
                "what": f"LMDB crashed while it was read ({name}): its pages hold garbage; what follows there was not read",
                "remedy": "as for any damaged file: let the node join again with an empty data directory, or restore a backup",
                "damage": True,
            },
        )
    elif reader.returncode > 0:
        raise CommandError(f"{path}: the process that reads it ended with code {reader.returncode}; what it said stands above", UNUSABLE)


def progress() -> Callable[[str, int, int], None]:
    """Tells on standard error how far a long work is: in place on a terminal, else a line every five seconds."""
    live, said = sys.stderr.isatty(), time.monotonic()

    def tell(part: str, done: int, total: int) -> None:
        nonlocal said
        ended = done >= total
        now = time.monotonic()
        if live:
            sys.stderr.write("\r\x1b[K" + ("" if ended else _so_far(part, done, total)))
            sys.stderr.flush()
        elif now - said > 5 and not ended:
            said = now
            sys.stderr.write(f"clusterctl: {_so_far(part, done, total)}\n")

    return tell


def _so_far(part: str, done: int, total: int) -> str:
    return f"{part}: {done} of {total} ({100 * done // total} %)"


# -- for a person -----------------------------------------------------------------------------------------------------------------


def view(document: Document) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    sound = document["sound"]
    heading = Text.assemble(
        ("sound" if sound else "damaged", "green" if sound else "bold red"),
        f"  {document['path']}",
        f"  node {document['node']}" if document["node"] else "",
    )
    parts: list[RenderableType] = [heading]
    seen = Table.grid(padding=(0, 2))
    for name, value in [*_raft_rows(document["raft"]), *_buffer_rows(document["buffer"])]:
        seen.add_row(Text(name, "dim"), Text(value))
    parts.append(seen)
    for finding in document["findings"]:
        word, colour = ("damage", "red") if finding["damage"] else ("note", "yellow")
        parts.append(Text.assemble((word, colour), f"  {finding['where']}: {finding['what']}"))
    parts += [Text(f"        {rest['where']}: {rest['count']} more of the kind {rest['kind']!r}", "dim") for rest in document["not_shown"]]
    remedies = dict.fromkeys(finding["remedy"] for finding in document["findings"] if finding["remedy"])
    parts += [Text.assemble(("remedy", "bold"), f"  {remedy}") for remedy in remedies]
    return Group(*parts)


def _raft_rows(raft: Document | None) -> list[tuple[str, str]]:
    if raft is None:
        return []
    kinds = ", ".join(f"{count} {kind}" for kind, count in raft["kinds"].items())
    servers = ", ".join(s["id"] + (" (learner)" if s["non_voter"] else "") for s in raft["configuration"]["servers"])
    return [
        ("log", f"entries {raft['first']}..{raft['last']}, the last of term {raft['last_term']}; {_size(raft['bytes'])}"),
        ("", kinds or "no entries"),
        ("term", f"{raft['term']}, voted for {raft['voted_for'] or 'nobody'}"),
        ("quorum", f"{servers or 'none'} (entry {raft['configuration']['index']})"),
    ]


def _buffer_rows(buffer: Document | None) -> list[tuple[str, str]]:
    if buffer is None:
        return []
    held = f"{len(buffer['topics'])} topics, {buffer['records']} records in {buffer['batches']} batches, {_size(buffer['bytes'])}"
    return [
        ("applied", f"entry {buffer['applied']} of term {buffer['applied_term']}"),
        ("buffer", f"{held}; {buffer['message_ids']} message ids"),
        ("roster", "none" if buffer["roster"] is None else f"{buffer['roster']} members"),
        *_command_rows(buffer["state"], buffer["results"]),
    ]


def _command_rows(state: Document | None, results: int) -> list[tuple[str, str]]:
    """None where no commands were run."""
    rows = [("state", f"up to command {state['command']}, {state['blocks']} blocks, {_size(state['bytes'])}")] if state is not None else []
    return rows + ([("sessions", f"{results} rows")] if results else [])


def _size(count: int) -> str:
    return f"{count} bytes" if count < 10_000 else f"{count / (1 << 20):.1f} MiB"
