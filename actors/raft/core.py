"""The Raft server as a pure value machine: inputs and the time go in, `Ready` comes out. No thread, socket, file, clock or chance in here.

Its shape is etcd-io/raft's (step, tick, ready), its rules on the wire are hashicorp/raft's. `node` holds the state; `election`,
`following` and `replication` have one handler for each message; this class is the table that leads to them and the order in which their
outcome is drained. `ready` documents what a shell must do with that, in which order.

Rejected: a core that returns effects from each call. Batches are what makes a log fast, and they form where effects wait
for each other: everything that arrived since the last `ready()` leaves in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from random import Random
from typing import Final

from coterie.actors.raft import election, following, reads, replication, snapshots
from coterie.actors.raft.applying import Handout
from coterie.actors.raft.core_views import CoreViews
from coterie.actors.raft.log import Doubt, HardState, LogReader, SnapshotMark
from coterie.actors.raft.membership import Change, changed
from coterie.actors.raft.node import Handed, Node, Role, Transfer
from coterie.actors.raft.progress import PeerView
from coterie.actors.raft.ready import AppendToken, Ready, SnapshotToken, Token, VoteToken
from coterie.actors.raft.refusals import (
    ChangeInProgress,
    LogBehindState,
    NoEntryInTerm,
    NotEmpty,
    NotLeading,
    TransferInProgress,
    UnknownServer,
)
from coterie.actors.raft.settings import Settings
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import (
    COMMAND,
    CONFIGURATION,
    AppendRequest,
    Configuration,
    Entry,
    PreVoteRequest,
    Request,
    Response,
    RpcError,
    Server,
    SnapshotRequest,
    SnapshotResponse,
    TimeoutNowRequest,
    VoteRequest,
    answerer,
)

__all__ = ["PeerView", "RaftCore"]

SUPPORTED_VERSIONS: Final = (2, 3)
UNSUPPORTED_VERSION: Final = "operation not supported with current protocol version"

_new_entry = tuple.__new__


class RaftCore(CoreViews):
    """One Raft server.

    me: this server's id and advertised Raft address.
    configuration: (index, configuration) of the latest configuration entry in the log, (0, empty) when there is none;
    previous_configuration(index): the same among entries below index.
    applied: index up to which the state machine has applied, durably. Raises LogBehindState when the log does not reach it.
    doubt: what the log has lost, see the file of that name.
    now: monotonic seconds, here and in every input; `random` decides the time-outs. lived_until: when an earlier life of this server ended, as far as the shell
    knows; the start of another process takes longer than anything that rests on it.
    """

    def __init__(
        self,
        me: Server,
        settings: Settings,
        log: LogReader,
        hard_state: HardState,
        configuration: tuple[int, Configuration],
        previous_configuration: Callable[[int], tuple[int, Configuration]],
        applied: int,
        now: float,
        random: Random,
        doubt: Doubt | None = None,
        lived_until: float = float("-inf"),
    ) -> None:
        if applied > log.last_index:
            raise LogBehindState(applied, log.last_index)
        self._node = node = Node(me, settings, log, hard_state, configuration, previous_configuration, now, random, doubt, lived_until)
        node.set_commit(applied)
        self._handout = Handout(node, applied)
        if node.decides_alone:
            node.election_deadline = now

    # -- inputs ------------------------------------------------------------------------------------------------------------------

    def request(self, handle: object, message: Request, now: float) -> bool:
        """An RPC came in; its answer leaves in `Ready.replies` with the same handle, in the order of the calls. True: of a SnapshotRequest the content is
        wanted, and its answer comes after `installed` or `not_installed`."""
        node = self._node
        node.now = now
        answer = self._answer(message)
        if answer is None:
            return True
        node.replies.append((handle, answer))
        return False

    def _answer(self, message: Request) -> Response | RpcError | None:
        node = self._node
        if message.header.version not in SUPPORTED_VERSIONS:
            node.counters["unsupported_versions"] += 1
            return RpcError(UNSUPPORTED_VERSION)
        match message:
            case AppendRequest():
                return following.on_append_request(node, message)
            case VoteRequest():
                return election.on_vote_request(node, message)
            case PreVoteRequest():
                return election.on_pre_vote_request(node, message)
            case TimeoutNowRequest():
                return election.on_timeout_now(node, message)
            case SnapshotRequest():
                return snapshots.on_snapshot_request(node, message)

    def installed(self, handle: object, mark: SnapshotMark, now: float) -> None:
        """The state machine has been replaced by the snapshot that ends at `mark`, durably (or has got as far by itself)."""
        node = self._node
        node.now = now
        if snapshots.install(node, mark):
            self._handout.reset(mark.index)
        node.replies.append((handle, SnapshotResponse(node.header, node.term, success=True)))

    def not_installed(self, handle: object, reason: str, now: float) -> None:
        """The content cannot be used."""
        node = self._node
        node.now = now
        node.counters["snapshots_refused"] += 1
        node.replies.append((handle, RpcError(reason, SnapshotResponse(node.header, node.term, success=False))))

    def snapshot_sent(self, peer: str, token: SnapshotToken, index: int, message: Response | RpcError | None, now: float) -> None:
        """How the sending of a snapshot up to `index` ended (None: no answer). What belongs to another session or term is dropped."""
        node = self._node
        node.now = now
        progress = node.progress.get(peer)
        if progress is None or (progress.session, node.term) != token:
            node.counters["late_answers"] += 1
            return
        if message is not None and answerer(message) not in ("", peer):
            node.answer_of_another()
            message = None
        snapshots.on_snapshot_sent(node, progress, index, message)

    def response(self, peer: str, token: Token, message: Response | RpcError | None, now: float) -> None:
        """A request was answered, or failed (None). An answer to another session, term or membership than the present is dropped."""
        node = self._node
        node.now = now
        if message is not None and answerer(message) not in ("", peer):
            node.answer_of_another()
            message = None
        if isinstance(token, VoteToken):
            if node.links.get(peer) == token.link:
                election.on_vote_response(node, peer, token, message)
                return
        else:
            progress = node.progress.get(peer)
            if progress is not None and progress.session == token.session and node.term == token.term:
                if isinstance(token, AppendToken):
                    replication.on_append_response(node, progress, token, message)
                else:
                    replication.on_transfer_response(node, message)
                return
        node.counters["late_answers"] += 1

    def connected(self, peer: str, now: float) -> None:
        """A connection to the peer stands: a new session begins."""
        node = self._node
        node.now = now
        node.links[peer] = node.next_number()
        progress = node.progress.get(peer)
        if progress is not None:
            progress.begin(node.next_number(), True, node.log.last_index + 1, now)
            node.pump_wanted = True
        voter = node.configuration.get(peer)
        if voter is not None and node.configuration.is_voter(peer) and node.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
            election.ask(node, voter)

    def disconnected(self, peer: str, now: float) -> None:
        """The connection to the peer ended, or one could not be made: with the leader's process its connections die at once, so its
        silence is now believed sooner. A leader that lives speaks again within the grace."""
        node = self._node
        node.now = now
        node.links.pop(peer, None)
        progress = node.progress.get(peer)
        if progress is not None:
            progress.connected = False
        if node.role is Role.FOLLOWER and node.leader is not None and node.leader.id == peer and node.leader_disconnected_at is None:
            node.leader_disconnected_at = now
            node.election_deadline = min(node.election_deadline, now + node.spread(node.settings.disconnect_grace))

    def propose(
        self,
        commands: Sequence[bytes],
        contexts: Sequence[object | None],
        now: float,
        appended_at: bytes = b"",
        extensions: Iterable[bytes | None] = repeat(None),
    ) -> int:
        """Append commands; the index of the first. Each context comes back beside its committed entry, or in `Ready.abandoned`.

        Raises NotLeading, TransferInProgress: then nothing was appended.
        """
        node = self._node
        node.now = now
        self._must_lead()
        if len(commands) != len(contexts):
            raise ValueError(f"{len(commands)} commands with {len(contexts)} contexts: give one context for each command")
        first = node.log.last_index + 1
        if not commands:
            return first
        indexes = range(first, first + len(commands))
        fields = zip(indexes, repeat(node.term), repeat(COMMAND), commands, extensions, repeat(appended_at))
        node.log.append([_new_entry(Entry, values) for values in fields])
        node.contexts += contexts
        node.pump_wanted = True
        return first

    def change(self, change: Change, context: object, now: float) -> int:
        """Propose a single-server change (Raft thesis, 4.1); the index of its entry.

        Raises NotLeading, TransferInProgress, NoEntryInTerm, ChangeInProgress, UnknownServer, AlreadyMember, AddressInUse, LastVoter.
        """
        node = self._node
        node.now = now
        self._must_lead()
        if node.commit < node.first_of_leadership:
            raise NoEntryInTerm(node.term)
        if node.configurations.index > node.commit:
            raise ChangeInProgress(node.configurations.index)
        return replication.append_configuration(node, changed(node.configuration, change), context)

    def _must_lead(self) -> None:
        node = self._node
        if node.role is not Role.LEADER:
            raise NotLeading(node.leader)
        if node.transfer is not None:
            raise TransferInProgress(node.transfer.target)

    def bootstrap(self, configuration: Configuration, now: float) -> None:
        """Make this server the first of a new cluster, as hashicorp's BootstrapCluster does: entry 1, of term 1, is the configuration.

        Raises NotEmpty when there is Raft state already, UnknownServer when this server is no voter of the configuration.
        """
        node = self._node
        node.now = now
        if node.term or node.log.last_index:
            raise NotEmpty(node.term, node.log.last_index)
        if not configuration.is_voter(node.me.id):
            raise UnknownServer(node.me.id, "voter")
        node.set_term(1)
        node.log.append((Entry(1, 1, CONFIGURATION, encode_configuration(configuration)),))
        node.configurations.append(1, configuration)
        node.configuration_changed()
        node.election_deadline = now

    def transfer(self, target: str | None, now: float) -> None:
        """Hand leadership over, to the voter that is furthest when `target` is None (Raft thesis, 3.10). Proposals are refused till it
        is done, or given up after an election time-out (TransferFailed).

        Raises NotLeading, TransferInProgress, UnknownServer.
        """
        node = self._node
        node.now = now
        self._must_lead()
        voters = [node.progress[server.id] for server in node.other_voters() if target in (None, server.id)]
        if not voters:
            raise UnknownServer(target or "", "voter beside this one")
        best = max(voters, key=lambda progress: (progress.connected, progress.match))
        node.transfer = Transfer(best.peer, now + node.settings.election_timeout)
        replication.try_transfer(node, node.transfer)

    def take_over(self, leader_id: str, now: float) -> bool:
        """Take the leadership from `leader_id`, which lives: see `election.take_over`. -> whether an election has begun; False where it is not the leader, or this
        server not the one to succeed it now."""
        node = self._node
        node.now = now
        return election.take_over(node, leader_id)

    def read_index(self, context: object, now: float, lease: bool = False) -> None:
        """Ask from which index on a state machine answers a read as if it were the only copy (ReadIndex, Raft thesis 6.4). `context` comes back in
        `Ready.confirmed`, or in `Ready.unconfirmed` when leadership is lost. lease: the leader's lease is enough, while it has one. Raises NotLeading."""
        node = self._node
        node.now = max(node.now, now)
        if node.role is not Role.LEADER:
            raise NotLeading(node.leader)
        reads.ask(node, context, lease)

    def tick(self, now: float) -> None:
        """Time passed. Needed at `deadline()`; harmless at any other time."""
        node = self._node
        node.now = now
        if node.role is not Role.LEADER:
            if now >= node.election_deadline:
                election.election_timeout(node)
            return
        if not replication.keeps_lease(node):
            return
        if node.transfer is not None:
            replication.check_transfer(node, node.transfer)
        replication.forget_departed(node)
        if any(progress.waits_for_probe() or progress.waits_for_snapshot() for progress in node.progress.values()):
            node.pump_wanted = True
        replication.pump(node)
        replication.speak(node)

    def stood_still(self, since: float, now: float) -> None:
        """The shell waited for its disk, and heard nobody meanwhile."""
        self._node.stood_still = (since, now)

    def deadline(self) -> float:
        """When `tick` is next wanted."""
        node = self._node
        if node.role is not Role.LEADER:
            return node.election_deadline
        moments = [replication.lease_end(node)]
        for progress in node.progress.values():
            if progress.connected:
                moments.append(replication.speak_at(node, progress))
                if progress.waits_for_probe() or progress.waits_for_snapshot():
                    moments.append(progress.retry_at)
            if progress.removal_index:
                moments.append(progress.removal_deadline)
        if node.transfer is not None:
            moments.append(node.transfer.deadline)
        if node.handed:
            moments.append(node.handed[0].at + node.settings.store_timeout)
        return min(moments)

    # -- outputs -----------------------------------------------------------------------------------------------------------------

    def ready(self) -> Ready | None:
        """All that is to be done, drained; None when there is nothing. Call until None: committed entries come in bounded chunks."""
        node = self._node
        if node.role is Role.LEADER:
            if node.reads.asked or node.reads.waiting:
                reads.advance(node)
            if node.pump_wanted:
                replication.pump(node)
            if node.reads.asked:
                replication.speak_of_reads(node)
        if not (node.has_news() or self._handout.has_more()):
            return None
        truncate_from, entries = node.log.take_unsaved()
        hard_state = HardState(node.term, node.voted_for) if node.hard_state_changed else None
        committed = self._handout.take()
        ready = Ready(
            hard_state,
            truncate_from,
            entries,
            node.before,
            node.after,
            node.replies,
            committed,
            node.abandoned,
            node.events,
            node.mark,
            node.snapshots,
            node.reads.confirmed,
            node.reads.unconfirmed,
        )
        if ready.must_store:
            node.hard_state_changed = False
            node.handed.append(Handed(node.log.last_index, node.log.last_term, node.log.generation, hard_state, node.now))
        node.before, node.after, node.replies, node.abandoned, node.events = [], [], [], [], []
        node.mark, node.snapshots = None, []
        node.reads.confirmed, node.reads.unconfirmed = [], []
        return ready

    def stored(self, last_index: int, last_term: int) -> None:
        """The next Ready with `must_store` is durable: (last_index, last_term) is the end of the log after it. Once for each, in order.

        Raises ValueError when that is not where the Ready left the log: the shell and the core have lost step, which must not go on.
        """
        node = self._node
        if not node.handed:
            return
        handed = node.handed[0]
        if (last_index, last_term) != (handed.last_index, handed.last_term):
            raise ValueError(
                f"stored up to index {last_index} of term {last_term}, but the Ready that was to be stored next "
                f"ends at index {handed.last_index} of term {handed.last_term}: report each one, in order"
            )
        node.handed.popleft()
        node.log.stored(handed.last_index, handed.generation)
        if node.role is Role.LEADER:
            replication.advance_commit(node)
        elif node.role is Role.CANDIDATE and handed.hard_state == HardState(node.term, node.me.id):
            election.own_vote_stored(node)

    def applied_to(self, index: int) -> None:
        """The state machine has applied everything up to `index`: room for more."""
        self._handout.applied_to(index)
