"""What a node remembers about its quorum beside the Raft log: `quorum.json` in the data directory, written anew, durably, at each change.

    cluster      the id of the cluster whose log this node has; "" while it has none, or does not know
    directories  which data directory it saw behind each server's id (see `identities`)
    founder      whom it let form the cluster (see `founding`)

It changes when the quorum does, so hardly ever. What others are told of it later and may be learned again (cluster, directories) is written by a thread of its
own: the supervisor must not wait for a disk that hangs. The founder is a promise, and is on the disk before anybody hears of it; it is given by nodes that have no
log yet. Without a data directory all of it lives as long as the node.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import attrs

from coterie.actors.disk.data_dir import write_durably
from coterie.actors.errors import StorageError
from coterie.transport.background import Background

FORMAT = 1
CLOSE_PATIENCE = 1.0  # seconds


@attrs.define(frozen=True)
class Remembered:
    cluster: str = ""
    directories: dict[str, str] = attrs.field(factory=dict)
    founder: str = ""


class QuorumFile:
    """path: None for a node that keeps all in memory. failed: told, in the thread that writes, what is wrong with the disk. `now`: what is remembered, also while it
    is not on the disk yet. Raises StorageError: the file cannot be read, or is none."""

    def __init__(self, path: Path | None, node: str = "", failed: Callable[[StorageError], object] = lambda error: None) -> None:
        self._path = path
        self._writing = threading.Lock()
        # One who waits is enough: whoever writes, writes the latest.
        self._writer: Background[None] = Background(
            f"{node}/quorum-file", lambda _: self._write(self.now), most=1, failed=lambda error: failed(_typed(error))
        )
        self.now = Remembered() if path is None else _read(path)

    def keep(self, cluster: str | None = None, directories: dict[str, str] | None = None) -> None:
        """What is given replaces what was; on the disk soon after."""
        now = attrs.evolve(
            self.now,
            cluster=self.now.cluster if cluster is None else cluster,
            directories=self.now.directories if directories is None else dict(directories),
        )
        if now != self.now:
            self.now = now
            if self._path is not None:
                self._writer.put(None)

    def promise(self, founder: str) -> None:
        """On the disk when this returns, if it is news. Raises StorageError."""
        if founder != self.now.founder:
            now = attrs.evolve(self.now, founder=founder)
            if self._path is not None:
                self._write(now)
            self.now = now

    def close(self) -> None:
        """What was to be written is, unless the disk hangs."""
        self._writer.close(CLOSE_PATIENCE)

    def _write(self, remembered: Remembered) -> None:
        assert self._path is not None
        text = json.dumps({"format": FORMAT, **attrs.asdict(remembered)}, ensure_ascii=False, indent=1)
        try:
            with self._writing:
                write_durably(self._path, text.encode() + b"\n")
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}; remedy: look at that file system") from error


def _typed(error: Exception) -> StorageError:
    return error if isinstance(error, StorageError) else StorageError(f"quorum.json: {error!r}")


def _read(path: Path) -> Remembered:
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']} is not known to this version, which knows {FORMAT}")
        found = Remembered(document["cluster"], dict(document["directories"]), document["founder"])
        texts = (found.cluster, found.founder, *found.directories, *found.directories.values())
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a field is no text")
    except FileNotFoundError:
        return Remembered()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path}: cannot be read: {error!r}; remedy: if this node has a Raft log, remove the file, it is made anew; if not, start with an empty data_dir"
        ) from error
    return found
