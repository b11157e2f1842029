"""Why the core refuses what its own node asks of it. Refused means: nothing was done, nothing will be."""

from __future__ import annotations

from coterie.proto.raft_messages import Server


class Refusal(Exception):
    """Base of all refusals of the Raft core."""


class NotLeading(Refusal):
    """This server does not lead. `leader` is who does, as far as it knows."""

    def __init__(self, leader: Server | None) -> None:
        super().__init__(f"not the leader; it is {leader.id} at {leader.address}" if leader else "not the leader; no leader is known")
        self.leader = leader


class TransferInProgress(Refusal):
    """Leadership is being handed to `target`: no proposal is taken until that ends."""

    def __init__(self, target: str) -> None:
        super().__init__(f"leadership is being transferred to {target}; retry when a leader is known")
        self.target = target


class ChangeInProgress(Refusal):
    """The configuration at `index` is not committed yet; one change at a time (Raft thesis, 4.1)."""

    def __init__(self, index: int) -> None:
        super().__init__(f"the configuration change at index {index} is not committed yet; retry when it is")
        self.index = index


class NoEntryInTerm(Refusal):
    """A new leader changes nothing before an entry of its own term is committed: two leaders' single-server changes could otherwise
    have quorums that do not meet (the correction to the thesis' single-server change)."""

    def __init__(self, term: int) -> None:
        super().__init__(f"no entry of term {term} is committed yet; retry in a moment")
        self.term = term


class UnknownServer(Refusal):
    """No such server in the configuration, or not one that could do what was asked."""

    def __init__(self, server_id: str, wanted: str = "server") -> None:
        super().__init__(f"{server_id!r} is not a {wanted} of the configuration")
        self.server_id = server_id


class AlreadyMember(Refusal):
    """The configuration already says so."""

    def __init__(self, server: Server) -> None:
        super().__init__(f"{server.id!r} at {server.address} is already in the configuration")
        self.server = server


class AddressInUse(Refusal):
    """Another server of the configuration has that address."""

    def __init__(self, holder: Server) -> None:
        super().__init__(f"address {holder.address} already belongs to {holder.id!r}")
        self.holder = holder


class LastVoter(Refusal):
    """Without this server nobody could vote any more."""

    def __init__(self, server_id: str) -> None:
        super().__init__(f"{server_id!r} is the only voter; add another one first")
        self.server_id = server_id


class NotEmpty(Refusal):
    """A cluster is bootstrapped only on a server without Raft state."""

    def __init__(self, term: int, last_index: int) -> None:
        super().__init__(f"this server already has Raft state (term {term}, last index {last_index}); it is not bootstrapped again")
        self.term, self.last_index = term, last_index


class LogBehindState(Refusal):
    """The state machine has applied entries which the log does not hold: one of them belongs to another life of this node."""

    def __init__(self, applied: int, last_index: int) -> None:
        super().__init__(
            f"the state machine has applied up to index {applied}, but the log ends at {last_index}: the log was lost or exchanged; "
            "remove this node from the cluster and let it join again with an empty data directory"
        )
        self.applied, self.last_index = applied, last_index
