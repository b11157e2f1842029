"""The commands of `clusterctl` for what is on disk: check, backup, restore, recover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click

from coterie.cli_flags import ID, OUTPUT, asking, command, end, flag
from coterie.cli_target import Target

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

    end(run(path, repl_buffer_dir, output))


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


COMMANDS: Final = (check, backup, restore, recover)
