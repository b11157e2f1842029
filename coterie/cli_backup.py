"""`clusterctl backup` and `clusterctl restore`.

A backup is written beside its place under another name, synced, read again as a whole, and only then gets its name: whoever sees the file sees a backup that is
whole. A file that is there already stays, unless `--force` says otherwise.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from coterie import cli_http
from coterie.cli_ask import as_table, say
from coterie.cli_backup_view import backup_document, servers_document, view_backup
from coterie.cli_check import check_directory, progress
from coterie.cli_errors import REFUSED, CommandError, NoAnswer
from coterie.cli_target import Target, shown

if TYPE_CHECKING:
    from coterie.proto.raft_messages import Configuration

Document = dict[str, Any]

PATIENCE: Final = 660.0  # seconds for a node to take its snapshot, and between two pieces of it
CHUNK: Final = 1 << 20


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """What the node's own code refuses, as the end of the command."""
    from coterie.actors.errors import InvalidRequest, StorageError
    from coterie.proto.errors import WireError

    try:
        yield
    except InvalidRequest as error:
        raise CommandError(str(error)) from None
    except (StorageError, WireError) as error:
        raise CommandError(str(error), REFUSED) from None


# -- backup -----------------------------------------------------------------------------------------------------------------------


def back_up(target: Target, paths: Sequence[str], buffer_dir: str | None, force: bool, output: str | None) -> None:
    """The command. paths: [DATA_DIR,] FILE. Raises CommandError, NoAnswer."""
    if len(paths) > 2:
        raise CommandError(f"backup: {len(paths)} paths; give FILE for the running node at --addr, or DATA_DIR and FILE for a stopped one")
    file = Path(paths[-1])
    if len(paths) == 1:
        document = write(file, force, lambda out: _from_node(target, out))
    else:
        document = write(file, force, lambda out: _from_directory(Path(paths[0]), buffer_dir, out))
    if not as_table(output):
        say(document)
        return
    from coterie.cli_tables import show

    show(view_backup({"sound": True, "findings": [], **document}))


def write(file: Path, force: bool, fill: Callable[[IO[bytes]], None]) -> Document:
    """Fill a file and verify it before it gets its name. -> what stands in it. Raises CommandError, NoAnswer; nothing is left then."""
    if not force and file.exists():
        raise CommandError(f"{file} is there already; give another name, or --force to replace it", REFUSED)
    if file.is_dir():
        raise CommandError(f"{file} is a directory; give the name of a file")
    try:
        out = tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", suffix=".part")  # noqa: SIM115 - it is kept on success
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}; name a directory that this user may write") from None
    with contextlib.closing(out), refusing():
        try:
            fill(out)
            out.flush()
            os.fsync(out.fileno())
            out.seek(0)
            from coterie.actors.stores.backups import verify

            document = backup_document(file, os.fstat(out.fileno()).st_size, verify(out))
            _give_name(Path(out.name), file, force)
        except FileExistsError:
            raise CommandError(f"{file} is there by now; give another name, or --force to replace it", REFUSED) from None
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror or error}; nothing was kept", REFUSED) from None
        return document


def _give_name(made: Path, file: Path, force: bool) -> None:
    """`made` keeps its own name too, and loses it when it is closed."""
    from coterie.actors.disk.lmdb_env import sync_directory

    if force:
        second = made.with_suffix(".new")
        os.link(made, second)
        second.replace(file)
    else:
        os.link(made, file)
    sync_directory(file.parent)


def _from_directory(directory: Path, buffer_dir: str | None, out: IO[bytes]) -> None:
    """The files are looked at first by a process of their own: LMDB trusts its pages, and could end this one. What else is damaged ends the backup where
    that reads it."""
    from coterie.actors.stores.backups import take

    buffer = Path(buffer_dir) if buffer_dir else None
    unreadable = [finding for finding in check_directory(directory, buffer, progress())["findings"] if finding["kind"] == "file"]
    if unreadable:
        raise CommandError(f"{directory}: {unreadable[0]['where']}: {unreadable[0]['what']}; {unreadable[0]['remedy']}", REFUSED)
    take(directory, buffer, out, progress())


def _from_node(target: Target, out: IO[bytes]) -> None:
    if target.grpc:
        raise CommandError("--mgmt-proto grpc: a backup comes over HTTP; give the address of the node's HTTP server")
    target.in_turn(lambda addr: _download(target, addr, out), repeatable=True)


def _download(target: Target, addr: tuple[str, int], out: IO[bytes]) -> None:
    out.seek(0)
    out.truncate()
    connection = cli_http.connect(target, addr)
    try:
        connection.sock.settimeout(PATIENCE)
        connection.request("GET", "/backup")
        answer = connection.getresponse()
        if answer.status != 200:
            refused = cli_http.as_object(answer.read(cli_http.MOST)) or {}
            if answer.status in (404, 405):
                raise CommandError(f"{shown(addr)} does not know GET /backup: does it run this version?")
            raise CommandError(f"{shown(addr)}: {refused.get('error') or f'it answered with {answer.status}'}", REFUSED)
        shutil.copyfileobj(answer, out, CHUNK)
    except TimeoutError:
        raise NoAnswer(f"{shown(addr)}: nothing came for {PATIENCE:g} s", sent=True) from None
    except (ConnectionError, http.client.HTTPException) as error:
        raise NoAnswer(f"{shown(addr)}: the connection was lost: {error or type(error).__name__}", sent=True) from None
    finally:
        connection.close()


# -- restore ----------------------------------------------------------------------------------------------------------------------


def restore_from(
    file: str,
    data_dir: str,
    output: str | None,
    id: str,  # noqa: A002 - the flag's name
    raft_addr: str | None,
    peers: str | None,
    repl_buffer_dir: str | None,
    deliver_again: bool,
) -> None:
    """The command. Raises CommandError."""
    if (raft_addr is None) == (peers is None):
        raise CommandError("restore: give --raft-addr for a quorum of this node alone, or --peers for several; one of the two")
    from coterie.actors.stores.backups import restore, verify

    configuration = read_peers(peers) if peers is not None else _alone(id, str(raft_addr))
    with refusing():
        from coterie.actors.raft.peers_file import check_among

        check_among(id, configuration)
        try:
            with Path(file).open("rb") as stream:
                verified = verify(stream)
                made = restore(
                    verified, Path(data_dir), Path(repl_buffer_dir) if repl_buffer_dir else None, id, configuration, not deliver_again
                )
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}; give a backup that can be read") from None
    document: Document = {
        "path": data_dir,
        "node": id,
        "from": verified.header.node_id,
        "records": verified.records,
        "first_index": made.first_index,
        "last_index": made.last_index,
        "term": made.term,
        "servers": servers_document(configuration),
    }
    if not as_table(output):
        say(document)
        return
    others = [server["id"] for server in document["servers"] if server["id"] != id]
    sys.stdout.write(f"restored {verified.records} records of {verified.header.node_id} into {data_dir}, as of {verified.header.created}\n")
    sys.stdout.write(f"the log of {id} goes on after entry {made.last_index}, in term {made.term}\n")
    if others:
        sys.stdout.write(f"restore the same backup with the same --peers for {', '.join(others)}, then start them\n")
    else:
        sys.stdout.write(f"start {id} without --bootstrap; others join it as they join any cluster\n")


def _alone(node: str, raft_addr: str) -> Configuration:
    import json

    from coterie.actors.errors import InvalidRequest
    from coterie.actors.raft.peers_file import parse_peers

    try:
        return parse_peers(json.dumps([{"id": node, "address": raft_addr}]))
    except InvalidRequest as error:
        raise CommandError(str(error).replace("peers[0].id", "--id").replace("peers[0].address", "--raft-addr")) from None


def read_peers(path: str) -> Configuration:
    """Raises CommandError."""
    from coterie.actors.errors import InvalidRequest
    from coterie.actors.raft.peers_file import parse_peers

    try:
        return parse_peers(Path(path).read_bytes())
    except OSError as error:
        raise CommandError(f"--peers {path!r}: {error.strerror}; give a file that can be read") from None
    except InvalidRequest as error:
        raise CommandError(f"--peers {path!r}: {error}") from None
