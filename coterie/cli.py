"""`clusterctl`: run a node, ask a cluster, change it.

All commands but `run` start fast: they import nothing of the cluster, and speak HTTP with the standard library. What a command prints on standard output is
its answer: JSON, or a table on a terminal. All else goes to standard error, in one line, never as a traceback.

Exit codes: 0 well; 1 degraded (status, members, topics), or refused; 2 no quorum, nobody answers, wrong usage or configuration, or a node that cannot start.
A node that fails later ends with 1.

The commands can be mounted in a service's own command: `commands` is a click group (`my_group.add_command(coterie.cli.commands, "cluster")`), `app` the same
for typer (`my_app.add_typer(coterie.cli.app, name="cluster")`). What each command is called, takes and says of itself stands here for a
node's own life, in `cli_cluster`, `cli_data` and `cli_disk` for the rest; the flags are in `cli_flags`, and what a command does is imported when it is run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import click

from coterie import __version__, cli_cluster, cli_data, cli_disk
from coterie.cli_errors import REFUSED, UNUSABLE
from coterie.cli_flags import (
    DISCOVERY,
    ID,
    LOG_FORMAT,
    LOG_LEVEL,
    NODE,
    OUTPUT,
    QUORUM,
    TLS,
    command,
    flag,
    given,
    source,
    switch,
    together,
)

__all__ = ["app", "commands", "main"]

app: Any

SHELLS: Final = ("bash", "zsh", "fish")


@click.group(
    name="clusterctl",
    epilog="Every flag about nodes and addresses can be given in the environment: --raft-addr is COTERIE_RAFT_ADDR. "
    "Exit codes: 0 well; 1 degraded or refused; 2 no quorum, no answer, wrong usage.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="coterie %(version)s")
def commands() -> None:
    """Run a node of a coterie cluster, ask a cluster, change it."""


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


for each in (run, *cli_cluster.COMMANDS, *cli_data.COMMANDS, *cli_disk.COMMANDS, version, completion):
    commands.add_command(each)


# -- entry ------------------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: runs the command and ends the process with its code."""
    sys.stdout = sys.stdout or _nowhere()  # closed by the caller, who wants the exit code alone
    sys.stderr = sys.stderr or _nowhere()
    sys.exit(_run(commands, list(sys.argv[1:] if arguments is None else arguments), "clusterctl"))


def _run(command: click.Command, arguments: list[str], name: str) -> int:
    try:
        code = command.main(arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return UNUSABLE
    except click.BadParameter as error:
        return _complain(_of_parameter(error, name), UNUSABLE)
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


def _of_parameter(error: click.BadParameter, name: str) -> str:
    text, context, parameter = error.format_message(), error.ctx, error.param
    if context is not None and parameter is not None and parameter.name is not None:
        with context.scope(cleanup=False):
            text = text.replace(":", f"{source(parameter.name)}:", 1)
    return f"{text} See '{context.command_path if context is not None else name} --help'."


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


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
