"""`clusterctl`: run a node, ask a cluster, change it.

All commands but `run` start fast: they import nothing of the cluster, and speak HTTP with the standard library. What a command prints on standard output is
its answer: JSON, or a table on a terminal. All else goes to standard error, in one line, never as a traceback.

Exit codes: 0 well; 1 degraded (status, members, topics), or refused; 2 no quorum, nobody answers, wrong usage or configuration, or a node that cannot start.
A node that fails later ends with 1.

The commands can be mounted in a service's own command: `commands` is a click group (`my_group.add_command(coterie.cli.commands, "cluster")`), `app` the same
for typer (`my_app.add_typer(coterie.cli.app, name="cluster")`). The flags are in `cli_flags`; here is what each command is called, takes and says of itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from coterie import __version__
from coterie.cli_errors import REFUSED, UNUSABLE, CommandError
from coterie.cli_flags import DISCOVERY, ID, LOG_FORMAT, LOG_LEVEL, NODE, OUTPUT, QUORUM, TLS, WATCH, asking, flag, given, switch, together
from coterie.cli_target import Target

__all__ = ["app", "commands", "main"]

app: Any

SHELLS: Final = ("bash", "zsh", "fish")
TOPIC: Final = click.argument("topic")
DATA: Final = click.argument("data", required=False)
RAW_OUTPUT: Final = flag(
    "output",
    "raw: the handler's bytes and nothing else. The default is its text on a terminal, else JSON.",
    type=click.Choice(["table", "json", "raw"]),
    default=None,
)


@click.group(
    name="clusterctl",
    epilog="Every flag about nodes and addresses can be given in the environment: --raft-addr is COTERIE_RAFT_ADDR. "
    "Exit codes: 0 well; 1 degraded or refused; 2 no quorum, no answer, wrong usage.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="coterie %(version)s")
def commands() -> None:
    """Run a node of a coterie cluster, ask a cluster, change it."""


def command(name: str, *examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command of `clusterctl`; its examples end its help."""
    return commands.command(name, epilog="\b\nExamples:\n" + "\n".join(f"  clusterctl {name} {example}".rstrip() for example in examples))


def _end(code: int) -> None:
    if code:
        raise click.exceptions.Exit(code)


# -- a node -----------------------------------------------------------------------------------------------------------------------


@command(
    "run",
    "--id n1 --bootstrap --data /var/lib/n1",
    "--id n2 --join 10.0.0.1:7946 --data /var/lib/n2",
)
@together(
    ID,
    NODE,
    DISCOVERY,
    TLS,
    switch("trace", "Show spans in the log, one line each; OTEL_* variables export them."),
    switch("bootstrap", "Form a new cluster, unless there is one in --data."),
    QUORUM,
    flag("data", "Directory of the node's durable state; none: all in memory.", metavar="DIRECTORY"),
    LOG_LEVEL,
    LOG_FORMAT,
)
def run(log_level: str, log_format: str, **flags: Any) -> None:
    """Run a node until SIGTERM or SIGINT. A second signal ends it at once."""
    from coterie.cli_run import run_node

    run_node(given(flags), log_level, log_format)


# -- questions --------------------------------------------------------------------------------------------------------------------


@command("status", "--addr 10.0.0.1:17946,10.0.0.2:17946", "--output json | jq .LeaderID", "--watch=1s")
@asking("3s")
@together(OUTPUT, WATCH)
def status(target: Target, output: str | None, watch: str | None, count: int | None) -> None:
    """Show leader, members, topics and warnings of a cluster.

    Exit code: 0 well, 1 degraded, 2 no quorum or no answer.
    """
    from coterie.cli_watch import look

    _end(look(target, "status", output, watch, count))


@command("members", "--addr 10.0.0.1:17946", "--watch")
@asking("3s")
@together(OUTPUT, WATCH)
def members(target: Target, output: str | None, watch: str | None, count: int | None) -> None:
    """Show who is in the cluster, those whom nobody reaches too. Exit code: as of status."""
    from coterie.cli_watch import look

    _end(look(target, "members", output, watch, count))


@command("topics", "--addr 10.0.0.1:17946", "--watch=500ms")
@asking("3s")
@together(OUTPUT, WATCH)
def topics(target: Target, output: str | None, watch: str | None, count: int | None) -> None:
    """Show how far each topic is, and how far each node is behind.

    Of each topic: its last seq, what is delivered and what is kept. Exit code: as of status.
    """
    from coterie.cli_watch import look

    _end(look(target, "topics", output, watch, count))


@command("raft", "--addr 10.0.0.1:17946", "--output json | jq '.Servers[] | [.ID, .State, .Lag]'")
@asking("3s")
@OUTPUT
def raft(target: Target, output: str | None) -> None:
    """Show the Raft state of a node, and how far each server is.

    Of the node: term, vote, indices of its log, how long its disk takes. Of each server, as the leader knows it: its state (probe, replicate, snapshot,
    unreachable), its log, how far it is behind. Exit code: 0 well, 1 a server is unreachable or needs a snapshot, 2 no leader or no answer.
    """
    from coterie.cli_raft import run

    _end(run(target, output))


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


# -- the quorum -------------------------------------------------------------------------------------------------------------------


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


# -- the application's data -------------------------------------------------------------------------------------------------------


@command("publish", "orders.created 42", "orders.created @order.json --message-id 7f3c", "orders.created - < order.json")
@TOPIC
@DATA
@flag("message-id", "A retry with the same id is not published twice.", variable=False, metavar="ID")
@flag("header", "A header of the record; may be given several times.", variable=False, multiple=True, metavar="NAME=VALUE")
@asking("15s")
@OUTPUT
def publish(target: Target, topic: str, data: str | None, message_id: str | None, header: Sequence[str], output: str | None) -> None:
    """Publish DATA on TOPIC, to every node.

    DATA is the text itself, - for standard input, or @FILE for the bytes of a file. The answer says the record's place: its seq in the topic.
    """
    from coterie.cli_ask import publish

    headers = dict(_header(text) for text in header)
    publish(target, topic, data, message_id, headers, output)


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


# -- what is on disk --------------------------------------------------------------------------------------------------------------


BUFFER_DIR: Final = flag("repl-buffer-dir", "Where the node's replication buffer is, when it is not in DATA_DIR.", metavar="DIRECTORY")


@command("check", "/var/lib/n1", "/var/lib/n1 --output json | jq '.findings[].what'", "n1.backup")
@click.argument("path", metavar="DATA_DIR|FILE")
@BUFFER_DIR
@OUTPUT
def check(path: str, repl_buffer_dir: str | None, output: str | None) -> None:
    """Verify all that a stopped node has on disk, or a backup. Nothing is changed.

    Every checksum, every index, term and sequence number, the configuration, the records, and that the log and the buffer belong together. Exit code: 0
    sound, 1 damaged, 2 it could not be checked, since the node runs, say.
    """
    from coterie.cli_check import run

    _end(run(path, repl_buffer_dir, output))


@command("backup", "--addr 10.0.0.1:17946 n1.backup", "/var/lib/n1 n1.backup", "--force n1.backup")
@click.argument("paths", metavar="[DATA_DIR] FILE", nargs=-1, required=True)
@BUFFER_DIR
@click.option("--force", is_flag=True, help="Replace FILE when it is there.")
@asking("60s")
@OUTPUT
def backup(target: Target, paths: Sequence[str], repl_buffer_dir: str | None, force: bool, output: str | None) -> None:
    """Back a node up into FILE, a running or a stopped one.

    The one at --addr, or the one whose DATA_DIR is given. Records, sequence numbers, message ids, roster and how far the handler is; everything that the
    node had acknowledged. FILE is verified before it gets its name.
    """
    from coterie.cli_backup import back_up

    back_up(target, paths, repl_buffer_dir, force, output)


@command("restore", "n1.backup /var/lib/n1 --id n1 --raft-addr 10.0.0.1:9520", "n1.backup /var/lib/n2 --id n2 --peers peers.json")
@click.argument("file", metavar="FILE")
@click.argument("data_dir", metavar="DATA_DIR")
@ID
@flag("raft-addr", "Raft address of the node, as the others dial it: it alone is the quorum.", metavar="HOST:PORT")
@flag("peers", "Who is in the quorum, this node among them: a JSON list of id, address, non_voter.", variable=False, metavar="FILE")
@BUFFER_DIR
@click.option(
    "--deliver-again", is_flag=True, help="Deliver all retained records again, instead of going on where the node of the backup was."
)
@OUTPUT
def restore(file: str, data_dir: str, output: str | None, **given: Any) -> None:
    """Make the data directory of a new cluster from a backup.

    The cluster has its records and numbers, and goes on above them. DATA_DIR must be new or empty. With --peers the same file is restored on each of the
    servers; else others join the one as they join any cluster.
    """
    from coterie.cli_backup import restore_from

    restore_from(file, data_dir, output, **given)


@command("recover", "/var/lib/n3 --peers peers.json --dry-run", "/var/lib/n3 --peers peers.json")
@click.argument("data_dir", metavar="DATA_DIR")
@flag(
    "peers",
    "Who is in the quorum from now on: a JSON list of id, address, non_voter. The same file for each node that is left.",
    variable=False,
    required=True,
    metavar="FILE",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@flag(
    "copy-to",
    "Where DATA_DIR is copied to first; the default is beside it, with the time in its name.",
    variable=False,
    metavar="DIRECTORY",
)
@BUFFER_DIR
@OUTPUT
def recover(data_dir: str, output: str | None, **given: Any) -> None:
    """Say who is in the quorum, when most of it is lost for good.

    The last resort: too few of its servers are left to agree on it. Run it on every server that is left, while all are stopped, with the same file. What is
    lost with the other servers is what only they had; those must
    never be started again.
    """
    from coterie.cli_recover import recover_from

    recover_from(data_dir, output, **given)


# -- certificates -----------------------------------------------------------------------------------------------------------------


@commands.group(name="tls")
def certificates() -> None:
    """Certificates for development."""


@certificates.command("init", epilog="\b\nExamples:\n  clusterctl tls init --dir certs --nodes n1,n2,n3 --hosts node1.lan,10.0.0.1")
@flag("dir", "Where to put the files; made when it is not there.", variable=False, required=True, metavar="DIRECTORY")
@flag("nodes", "Ids of the nodes.", variable=False, required=True, metavar="ID,ID")
@flag("hosts", "Names and addresses that the nodes are dialled by, beside this machine's own.", variable=False, default="", metavar="HOSTS")
@flag("days", "How long the certificates are valid.", variable=False, type=int, default=365, show_default=True, metavar="N")
@OUTPUT
def tls_init(dir: str, nodes: str, hosts: str, days: int, output: str | None) -> None:  # noqa: A002 - the flag's name
    """Make a CA, and certificates for nodes and a client.

    For development: the key of the CA lies beside them.
    Nothing is overwritten; a CA that is there already issues the new certificates.
    """
    from coterie.cli_tls import init

    init(dir, nodes, hosts, days, output)


# -- the command itself -----------------------------------------------------------------------------------------------------------


@command("version", "", "--output json")
@OUTPUT
def version(output: str | None) -> None:
    """Show which version this is."""
    from coterie.cli_ask import as_table, say

    if as_table(output):
        click.echo(f"coterie {__version__}")
    else:
        say({"version": __version__, "python": sys.version.split()[0]})


@command("completion", "bash > ~/.local/share/bash-completion/completions/clusterctl", "fish > ~/.config/fish/completions/clusterctl.fish")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script that completes commands and flags in SHELL."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(commands, {}, "clusterctl", "_CLUSTERCTL_COMPLETE").source())


# -- entry ------------------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: runs the command and ends the process with its code."""
    sys.exit(_run(commands, list(sys.argv[1:] if arguments is None else arguments), "clusterctl"))


def _run(command: click.Command, arguments: list[str], name: str) -> int:
    try:
        code = command.main(arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return UNUSABLE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else name
        return _complain(f"{error.format_message()} See '{where} --help'.", UNUSABLE)
    except click.ClickException as error:
        return _complain(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _complain("interrupted", 130)
    except BrokenPipeError:  # whoever read the answer has had enough; nothing more can be said to them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except Exception as error:  # a traceback is no answer to an operator
        if os.environ.get("COTERIE_TRACEBACK"):
            raise
        return _complain(f"{type(error).__name__}: {error}", UNUSABLE)
    return code if isinstance(code, int) else 0


def _complain(text: str, code: int) -> int:
    click.echo("clusterctl: " + " ".join(text.split()), err=True)
    return code


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from coterie.cli_typer import typer_app

    globals()["app"] = made = typer_app(commands, _run)
    return made


if __name__ == "__main__":
    main()
