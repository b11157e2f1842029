"""The commands of `clusterctl` for the application's data: what is published, written, applied and read, and the dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from coterie.cli_errors import CommandError
from coterie.cli_flags import OUTPUT, asking, command, flag
from coterie.cli_target import Target

TOPIC: Final = click.argument("topic")
DATA: Final = click.argument("data", required=False)
RAW_OUTPUT: Final = flag(
    "output",
    "raw: the handler's bytes and nothing else. The default is its text on a terminal, else JSON.",
    type=click.Choice(["table", "json", "raw"]),
    default=None,
)


@command("publish", "orders.created 42", "orders.created @order.json --message-id 7f3c", "orders.created - < order.json")
@TOPIC
@DATA
@flag("message-id", "A retry with the same id is not published twice.", variable=False, metavar="ID")
@flag(
    "acks",
    "Done when it is on the disks of a quorum, on that of the leader alone, or delivered by all live members besides.",
    variable=False,
    type=click.Choice(["quorum", "leader", "all"]),
)
@flag("header", "A header of the record; may be given several times.", variable=False, multiple=True, metavar="NAME=VALUE")
@asking("15s")
@OUTPUT
def publish(
    target: Target, topic: str, data: str | None, message_id: str | None, acks: str | None, header: Sequence[str], output: str | None
) -> None:
    """Publish DATA on TOPIC, to every node.

    DATA is the text itself, - for standard input, or @FILE for the bytes of a file. The answer says the record's place: its seq in the topic.
    """
    from coterie.cli_ask import publish

    headers = dict(_header(text) for text in header)
    publish(target, topic, data, message_id, acks, headers, output)


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise CommandError(f"--header {text!r}: give NAME=VALUE")
    return name, value


@command("write", "reserve 42", "import @orders.json --output raw")
@click.argument("op")
@DATA
@asking("15s")
@RAW_OUTPUT
def write(target: Target, op: str, data: str | None, output: str | None) -> None:
    """Run the application's handle_write(OP, DATA) on the leader. DATA is as for publish."""
    from coterie.cli_ask import call

    call(target, "appwrite", op, data, output)


@command("apply", "up visits", "set @colour.json --session billing-7f3a --number 1")
@click.argument("op")
@DATA
@flag("session", "A name of this client alone, for a command that may be sent again.", variable=False, metavar="NAME")
@flag("number", "Which command of the session this is, from 1.", variable=False, type=click.IntRange(min=1), metavar="N")
@asking("15s")
@RAW_OUTPUT
def apply(target: Target, op: str, data: str | None, session: str | None, number: int | None, output: str | None) -> None:
    """Run a replicated command on every node's handler.

    handle_apply(OP, DATA) runs on all of them, in one order; the answer is what the handler of the node that was asked returned. DATA is as for publish. With
    --session and --number the command may be sent again until it has an answer: it is applied once.
    """
    from coterie.cli_ask import apply

    apply(target, op, data, session, number, output)


@command("read", "stock 42", "export --output raw > orders.json")
@click.argument("op")
@DATA
@asking("15s")
@RAW_OUTPUT
@flag(
    "consistency",
    "The answer of the node that is asked: of a state that has all that was acknowledged before, the same on the word of the leader's clock, or of what it has now.",
    variable=False,
    type=click.Choice(["linearizable", "lease", "local"]),
)
def read(target: Target, op: str, data: str | None, output: str | None, consistency: str | None) -> None:
    """Run the application's handle_read(OP, DATA). DATA is as for publish.

    It runs on the leader, or with --consistency on the node that is asked.
    """
    from coterie.cli_ask import call

    call(target, "read", op, data, output, {"consistency": consistency} if consistency else {})


@command("dead-letters", "--topic orders.created", "--output json | jq '.letters[].reason'", "--requeue 7 --requeue 9")
@flag("topic", "Only letters about records of this topic.", variable=False, metavar="TOPIC")
@flag("limit", "At most so many, the latest first.", variable=False, type=click.IntRange(min=1), default=100, show_default=True)
@flag(
    "requeue",
    "Publish the record of this letter again; may be given several times.",
    variable=False,
    multiple=True,
    type=int,
    metavar="LETTER",
)
@asking("15s")
@OUTPUT
def dead_letters(target: Target, topic: str | None, limit: int, requeue: Sequence[int], output: str | None) -> None:
    """Show the dead letters, or publish some of them again.

    A dead letter is a record on which a handler failed too often.
    """
    from coterie.cli_dead_letters import run

    run(target, topic, limit, requeue, output)


COMMANDS: Final = (publish, write, apply, read, dead_letters)
