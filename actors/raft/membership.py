"""Who belongs to the cluster: the configurations in the log, and single-server changes (Raft thesis, chapter 4).

A configuration is in force from the moment its entry is appended, committed or not. When a new leader's log cuts it off again, the
one before it is in force: those since the last committed one are kept here, older ones are asked of storage. Joint consensus was not
chosen: hashicorp's wire has single-server changes only, and with the no-op rule (see `refusals.NoEntryInTerm`) they are safe.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from coterie.actors.raft.refusals import AddressInUse, AlreadyMember, LastVoter, UnknownServer
from coterie.proto.raft_messages import NONVOTER, VOTER, Configuration, Server


@attrs.define(frozen=True)
class AddVoter:
    """A new voter; also promotes a nonvoter, and gives a voter its new address."""

    id: str
    address: str


@attrs.define(frozen=True)
class AddNonvoter:
    """A new learner: it gets the log and has no vote. Also gives a nonvoter its new address."""

    id: str
    address: str


@attrs.define(frozen=True)
class RemoveServer:
    id: str


Change = AddVoter | AddNonvoter | RemoveServer


def changed(configuration: Configuration, change: Change) -> Configuration:
    """The configuration after `change`. Raises AlreadyMember, AddressInUse, UnknownServer, LastVoter."""
    present = configuration.get(change.id)
    if isinstance(change, RemoveServer):
        if present is None:
            raise UnknownServer(change.id)
        rest = Configuration(tuple(server for server in configuration.servers if server.id != change.id))
        if not rest.voters():
            raise LastVoter(change.id)
        return rest
    wanted = Server(change.id, change.address, VOTER if isinstance(change, AddVoter) else NONVOTER)
    holder = next((server for server in configuration.servers if server.address == wanted.address and server.id != wanted.id), None)
    if holder is not None:
        raise AddressInUse(holder)
    if present is None:
        return Configuration((*configuration.servers, wanted))
    if present == wanted or (present.suffrage == VOTER and wanted.suffrage != VOTER):
        raise AlreadyMember(present)
    return Configuration(tuple(wanted if server.id == wanted.id else server for server in configuration.servers))


class Configurations:
    """The configuration in force (`index`, `latest`, and the `quorum` of its voters), and what a truncation would bring back."""

    def __init__(self, latest: tuple[int, Configuration], before: Callable[[int], tuple[int, Configuration]]) -> None:
        self._history: list[tuple[int, Configuration]] = [latest]
        self._before = before
        self._in_force()

    def _in_force(self) -> None:
        """Plain attributes: they are asked dozens of times for each entry, and change with an operator's decision."""
        self.index, self.latest = self._history[-1]
        self.quorum = quorum(len(self.latest.voters()))

    def lists(self, server_id: str) -> bool:
        """Is it in the configuration in force, or in one that a truncation may bring back?"""
        return any(configuration.get(server_id) is not None for _, configuration in self._history)

    def append(self, index: int, configuration: Configuration) -> None:
        self._history.append((index, configuration))
        self._in_force()

    def truncate(self, index: int) -> bool:
        """Entries from `index` on are gone. True when that changed the configuration in force."""
        if self.index < index:
            return False
        while self._history and self._history[-1][0] >= index:
            self._history.pop()
        if not self._history:
            self._history.append(self._before(index))
        self._in_force()
        return True

    def reset(self, index: int, configuration: Configuration) -> None:
        """A snapshot that stands on this configuration replaces the log."""
        self._history = [(index, configuration)]
        self._in_force()

    def committed(self, commit: int) -> None:
        """A truncation never reaches below the commit index: what it cannot bring back is forgotten."""
        while len(self._history) > 1 and self._history[1][0] <= commit:
            del self._history[0]


def quorum(voters: int) -> int:
    return voters // 2 + 1
