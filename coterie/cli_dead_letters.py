"""`clusterctl dead-letters`: which records handlers have failed on too often, and their way back.

The question goes to one node, over HTTP; every node holds all dead letters, so any will do. `--requeue` publishes the records to their topics again, letter by
letter; each is taken once, however often it is asked for, so a command that was interrupted may be repeated.
"""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from coterie import cli_http
from coterie.cli_ask import as_table, say
from coterie.cli_errors import REFUSED, CommandError
from coterie.cli_target import Target

if TYPE_CHECKING:
    from rich.console import RenderableType

Document = dict[str, Any]
Ask = Callable[[str, str, Document | None], Document]  # (method, path, body) -> the node's answer

SHOWN: Final = 40  # characters of the data in a table
PAGE: Final = 1000


def run(target: Target, topic: str | None, limit: int, letters: Sequence[int], output: str | None) -> None:
    """The command. letters: those to publish again; none: show what there is. Raises CommandError, NoAnswer."""
    if target.grpc:
        raise CommandError("--mgmt-proto grpc: dead letters are told over HTTP; give the address of the node's HTTP server")

    def ask(method: str, path: str, body: Document | None) -> Document:
        return target.in_turn(lambda addr: cli_http.ask(target, addr, method, path, body), repeatable=True)

    if not letters:
        document = fetch(ask, topic or "", limit)
        if as_table(output):
            from coterie.cli_tables import show

            show(view(document))
        else:
            say(document)
        return
    document = publish_again(ask, letters)
    if as_table(output):
        for row in document["requeued"]:
            if "error" not in row:
                sys.stdout.write(f"letter {row['letter']}: published again on {row['topic']}, seq {row['seq']}\n")
    else:
        say(document)
    if refused := refusals(document):
        raise CommandError("; ".join(refused), REFUSED)


def fetch(ask: Ask, topic: str, limit: int) -> Document:
    """The letters, the latest first, from as many pages as it takes; the shape of GET /dead-letters. Raises CommandError."""
    letters: list[Document] = []
    before: int | None = None
    while True:
        query = {"limit": min(PAGE, limit - len(letters)), **({"topic": topic} if topic else {}), **({"before": before} if before else {})}
        page = ask("GET", f"/dead-letters?{urlencode(query)}", None)
        if not isinstance(page.get("letters"), list):
            raise CommandError(str(page.get("error") or "the answer holds no letters; is this a management address?"), REFUSED)
        letters += page["letters"]
        before = page.get("next")
        if before is None or len(letters) >= limit:
            return {"letters": letters, "next": before}


def publish_again(ask: Ask, letters: Sequence[int]) -> Document:
    """Publish the records of these letters again. -> what became of each; "error" stands in those that were refused."""
    rows = []
    for letter in letters:
        answer = ask("POST", "/requeue", {"letter": letter})
        rows.append({"letter": letter, **answer})
    return {"requeued": rows}


def refusals(document: Document) -> list[str]:
    """What could not be requeued, in words."""
    return [f"letter {row['letter']}: {row['error']}" for row in document["requeued"] if row.get("error")]


def rows(document: Document) -> list[tuple[str, ...]]:
    """The letters as a table's rows: letter, time, topic, seq, node, attempts, reason, data."""
    return [
        (
            str(letter["letter"]),
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter["time"])),
            letter["topic"],
            str(letter["seq"]),
            letter["node"],
            str(letter["attempts"]),
            letter["reason"],
            preview(base64.b64decode(letter["data"])),
        )
        for letter in document["letters"]
    ]


def preview(data: bytes) -> str:
    """The beginning of the data as text, without what a terminal would take for a command."""
    text = "".join(c if c.isprintable() else "·" for c in data[: 4 * SHOWN].decode(errors="replace"))
    return text if len(data) <= SHOWN and len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def view(document: Document) -> RenderableType:
    """For a person: as a table, or where that is too wide for the terminal, a few lines a letter."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from coterie.cli_tables import Fitting

    if not document["letters"]:
        return Text("no dead letters")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("letter", "time", "topic", "seq", "node", "attempts", "reason", "data"):
        table.add_column(column, overflow="fold")
    lines: list[RenderableType] = []
    for row in rows(document):
        table.add_row(*map(Text, row))
        letter, at, topic, seq, node, attempts, reason, data = row
        head = Text.assemble((f"letter {letter}", "bold"), f"  {topic} seq {seq}  on {node}, {attempts} attempts, {at}")
        lines += [head, Padding(Text(reason), (0, 0, 0, 2)), Padding(Text(data, "dim"), (0, 0, 0, 2))]
    letters = Fitting(table, Group(*lines))
    return Group(letters, Text("there are older ones: give a higher --limit", "dim")) if document.get("next") else letters
