"""What a node remembers about its quorum beside the Raft log: `quorum.json` in the data directory, written anew, durably, at each change.

    cluster      the id of the cluster whose log this node has; "" while it has none, or does not know
    directories  which data directory it saw behind each server's id (see `identities`)
    founder      whom it let form the cluster (see `founding`)

It changes when the quorum does, so hardly ever. Without a data directory it lives as long as the node, like all else.
"""

from __future__ import annotations

import json
from pathlib import Path

import attrs

from coterie.actors.data_dir import write_durably
from coterie.actors.errors import StorageError

FORMAT = 1


@attrs.define(frozen=True)
class Remembered:
    cluster: str = ""
    directories: dict[str, str] = attrs.field(factory=dict)
    founder: str = ""


class QuorumFile:
    """path: None for a node that keeps all in memory. Raises StorageError: the file cannot be read, or is none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.now = Remembered() if path is None else _read(path)

    def keep(self, cluster: str | None = None, directories: dict[str, str] | None = None, founder: str | None = None) -> None:
        """What is given replaces what was; on the disk when this returns, if it is news. Raises StorageError."""
        before = self.now
        now = Remembered(
            before.cluster if cluster is None else cluster,
            before.directories if directories is None else dict(directories),
            before.founder if founder is None else founder,
        )
        if now == before:
            return
        if self._path is not None:
            try:
                write_durably(
                    self._path, json.dumps({"format": FORMAT, **attrs.asdict(now)}, ensure_ascii=False, indent=1).encode() + b"\n"
                )
            except OSError as error:
                raise StorageError(f"{self._path}: cannot be written: {error.strerror}; remedy: look at that file system") from error
        self.now = now


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
