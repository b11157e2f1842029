"""The commands of `clusterctl` that ask a cluster how it is, and that change its quorum."""

from __future__ import annotations

from typing import Any, Final

import click

from coterie.cli_flags import ID, OUTPUT, WATCH, asking, command, end, flag, together
from coterie.cli_target import Target


@command("status", "--addr 10.0.0.1:17946,10.0.0.2:17946", "--output json | jq .LeaderID", "--watch=1s")
@asking("3s")
@together(OUTPUT, WATCH)
def status(target: Target, output: str | None, watch: str | None, count: int | None) -> None:
    """Show leader, members, topics and warnings of a cluster.

    Exit code: 0 well, 1 degraded, 2 no quorum or no answer.
    """
    from coterie.cli_watch import look

    end(look(target, "status", output, watch, count))


@command("members", "--addr 10.0.0.1:17946", "--watch")
@asking("3s")
@together(OUTPUT, WATCH)
def members(target: Target, output: str | None, watch: str | None, count: int | None) -> None:
    """Show who is in the cluster, those whom nobody reaches too. Exit code: as of status."""
    from coterie.cli_watch import look

    end(look(target, "members", output, watch, count))


@command("topics", "--addr 10.0.0.1:17946", "--watch=500ms")
@asking("3s")
@together(OUTPUT, WATCH)
def topics(target: Target, output: str | None, watch: str | None, count: int | None) -> None:
    """Show how far each topic is, and how far each node is behind.

    Of each topic: its last seq, what is delivered and what is kept. Exit code: as of status.
    """
    from coterie.cli_watch import look

    end(look(target, "topics", output, watch, count))


@command("raft", "--addr 10.0.0.1:17946", "--output json | jq '.Servers[] | [.ID, .State, .Lag]'")
@asking("3s")
@OUTPUT
def raft(target: Target, output: str | None) -> None:
    """Show the Raft state of a node, and how far each server is.

    Of the node: term, vote, indices of its log, how long its disk takes. Of each server, as the leader knows it: its state (probe, replicate, snapshot,
    unreachable), its log, how far it is behind. Exit code: 0 well, 1 a server is unreachable or needs a snapshot, 2 no leader or no answer.
    """
    from coterie.cli_raft import run

    end(run(target, output))


@command("events", "--addr 10.0.0.1:17946", "--for 1m --output json", "--count 1")
@asking("3s")
@together(
    OUTPUT,
    flag("count", "End after so many events.", variable=False, type=click.IntRange(min=1), metavar="N"),
    flag("for", "End after this time.", variable=False, metavar="DURATION"),
)
def events(target: Target, output: str | None, count: int | None, **limit: Any) -> None:
    """Show what happens in the cluster, as it happens.

    Elections, leaders, members that come, go and fail; Ctrl-C ends it.
    """
    from coterie.cli_events import listen

    listen(target, output, count, limit["for"])


@command("probe", "ready", "live --addr 10.0.0.1:17946")
@click.argument("what", type=click.Choice(["ready", "live"]))
@asking("3s")
def probe(target: Target, what: str) -> None:
    """Ask a node whether it is ready, or at least live.

    Ready: requests should come to it. Not live: only a new start helps. For the health check of a container. Exit code: 0 yes; 1 no, with the
    reason; 2 no answer.
    """
    from coterie.cli_ask import probe

    probe(target, what)


@command(
    "join",
    "--id n2 --raft-addr 10.0.0.2:9520 --addr 10.0.0.1:17946",
    "--id n2 --raft-addr 10.0.0.2:9520 --addr 10.0.0.1:17946,10.0.0.2:17946 --wait 2m",
)
@ID
@flag("raft-addr", "Raft address of the node that joins, as the others dial it.", required=True, metavar="HOST:PORT")
@flag("wait", "Ask again for so long, while nodes start or a leader is elected.", variable=False, metavar="DURATION")
@asking("15s")
@OUTPUT
def join(target: Target, id: str, raft_addr: str, wait: str | None, output: str | None) -> None:  # noqa: A002 - the flag's name
    """Make a node a voter. Any node may be asked: an answer that names the leader is followed once.

    It may be repeated: of a node that is a voter at that address it is accepted at once.
    """
    from coterie.cli_ask import change

    change(target, "join", {"id": id, "raftAddr": raft_addr}, output, wait)


@command("leave", "--id n2 --addr 10.0.0.1:17946")
@ID
@asking("15s")
@OUTPUT
def leave(target: Target, id: str, output: str | None) -> None:  # noqa: A002 - the flag's name
    """Take a node out of the quorum. Any node may be asked."""
    from coterie.cli_ask import change

    change(target, "leave", {"id": id}, output)


@command("transfer", "", "--to n2 --addr 10.0.0.1:17946")
@flag("to", "Who is to lead; none: the voter that has most of the log.", variable=False, metavar="ID")
@asking("15s")
@OUTPUT
def transfer(target: Target, to: str | None, output: str | None) -> None:
    """Hand leadership over, to a voter of your choice. Any node may be asked.

    Nothing is lost and nobody waits for a time-out: publishes go on with the new leader. Of a node that leads already it is accepted at once.
    """
    from coterie.cli_ask import change

    change(target, "transfer", {"id": to} if to else {}, output)


COMMANDS: Final = (status, members, topics, raft, events, probe, join, leave, transfer)
