"""`status`, `members` and `topics`: once, or again and again with `--watch`.

On a terminal a look replaces the one before it; elsewhere each is a JSON document on a line of its own. A look that gets no answer is told in the same place, and
the next one is taken all the same. Ctrl-C ends it, with the exit code of the last look.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from coterie import cli_ask
from coterie.cli_errors import CommandError
from coterie.cli_target import Target, duration

Document = dict[str, Any]

DOCUMENTS: Final[dict[str, Callable[[Document], Document]]] = {
    "status": lambda status: status,
    "members": cli_ask.members_document,
    "topics": cli_ask.topics_document,
}


def look(target: Target, what: str, output: str | None, watch: str | None, count: int | None) -> int:
    """Show `what`; the exit code that it means. Raises CommandError."""
    if watch is None:
        if count is not None:
            raise CommandError("--count: give --watch too")
        code, document = _ask(target, what)
        if cli_ask.as_table(output):
            from coterie import cli_tables

            cli_tables.show(getattr(cli_tables, f"{what}_view")(document))
        else:
            cli_ask.say(document)
        return code
    every = duration("--watch", watch)
    with _screen(what) if cli_ask.as_table(output) else contextlib.nullcontext(cli_ask.say) as show:
        return _again(target, what, every, count, show)


def _ask(target: Target, what: str) -> tuple[int, Document]:
    status = cli_ask.ask_status(target)
    return cli_ask.status_code(status), DOCUMENTS[what](status)


def _again(target: Target, what: str, every: float, count: int | None, show: Callable[[Document], object]) -> int:
    code, looks = 0, 0
    try:
        while count is None or looks < count:
            if looks:
                time.sleep(every)
            try:
                code, document = _ask(target, what)
            except CommandError as error:
                code, document = error.code, {"error": str(error)}
            show(document)
            looks += 1
    except KeyboardInterrupt:
        sys.stderr.write("\n")
    return code


@contextlib.contextmanager
def _screen(what: str) -> Iterator[Callable[[Document], None]]:
    """Shows documents as tables, each in the place of the one before it."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from coterie import cli_tables

    view = getattr(cli_tables, f"{what}_view")
    with Live(console=Console(highlight=False), auto_refresh=False) as live:

        def show(document: Document) -> None:
            shown = Text(document["error"], "bold red") if "error" in document else view(document)
            live.update(Group(Text(time.strftime("%H:%M:%S"), "dim"), shown), refresh=True)

        yield show
