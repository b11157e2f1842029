"""What membership keeps on disk: this node's incarnation, and where its fellow members were last seen.

One JSON file, replaced as a whole: `{"format":1,"node_id":…,"incarnation":n,"members":[{"id":…,"addr":"host:port"}…]}`. Both are hints. The incarnation
saves a restarted node one refutation; the addresses let it find the others when no seed answers. So a file that is missing, damaged or of
another node is as good as an empty one; it is said aloud and replaced by the next save.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from coterie.actors.disk.data_dir import write_durably

FORMAT: Final = 1
HIGHEST: Final = 0xFFFFFFFF


@attrs.define(frozen=True)
class Remembered:
    """`members`: (id, "host:port"). `problem` says why nothing could be read, "" when nothing was wrong."""

    incarnation: int = 0
    members: tuple[tuple[str, str], ...] = ()
    problem: str = ""


class MemberStore:
    """`path` None: nothing is kept."""

    def __init__(self, path: Path | None, node_id: str) -> None:
        self._path, self._node_id = path, node_id

    @property
    def keeps(self) -> bool:
        return self._path is not None

    def load(self) -> Remembered:
        if self._path is None:
            return Remembered()
        try:
            return self._read(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return Remembered()
        except (OSError, ValueError, KeyError, TypeError) as error:
            return Remembered(problem=f"{self._path}: {error or type(error).__name__}; starting without it")

    def save(self, incarnation: int, members: Sequence[tuple[str, str]]) -> None:
        """Raises OSError."""
        if self._path is not None:
            rows = [{"id": name, "addr": address} for name, address in members]
            document = {"format": FORMAT, "node_id": self._node_id, "incarnation": incarnation, "members": rows}
            write_durably(self._path, json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n")

    def _read(self, document: dict[str, Any]) -> Remembered:
        if document["format"] != FORMAT or document["node_id"] != self._node_id:
            return Remembered(problem=f"{self._path}: format {document['format']} of node {document['node_id']!r}; starting without it")
        incarnation = document["incarnation"]
        members = tuple((row["id"], row["addr"]) for row in document["members"])
        if (
            not isinstance(incarnation, int)
            or not 0 <= incarnation < HIGHEST
            or not all(isinstance(part, str) for row in members for part in row)
        ):
            raise ValueError("an incarnation or a member that is none")
        return Remembered(incarnation, members)
