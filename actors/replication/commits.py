"""From committed entries to numbers and answers: each entry goes through the state machine, and who proposed it here hears of its places.

A batch that was proposed here is not decoded again: it comes back as the context of its proposal. What came of the entries goes to the others of the room by
way of `outcomes`. Runs in the publisher's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from coterie.actors.errors import CoterieError, Indeterminate
from coterie.actors.replication import spans
from coterie.actors.replication.acknowledgements import Acknowledgements
from coterie.actors.replication.answers import Hold, answer
from coterie.actors.replication.losses import Losses
from coterie.actors.replication.metrics import ReplicationMetrics
from coterie.actors.replication.outcomes import Outcomes
from coterie.actors.replication.packing import Chunk
from coterie.actors.replication.proposals import Proposal, Proposals
from coterie.actors.replication.reader import Reader
from coterie.actors.replication.registrar import Registrar, RosterProposal
from coterie.actors.replication.state_machine import StateMachine
from coterie.actors.room_messages import Committed
from coterie.actors.tracing import TRACING


class Commits:
    """hold: takes what is to be delivered by all. fail: tells the publishers of chunks that they came to nothing."""

    def __init__(
        self,
        node: str,
        machine: StateMachine,
        proposals: Proposals,
        registrar: Registrar,
        outcomes: Outcomes,
        acks: Acknowledgements,
        losses: Losses,
        metrics: ReplicationMetrics,
        hold: Hold,
        fail: Callable[[list[Chunk], CoterieError], None],
        reader: Reader,
    ) -> None:
        self._node, self._machine, self._proposals, self._registrar, self._outcomes = node, machine, proposals, registrar, outcomes
        self._acks, self._losses, self._metrics, self._hold, self._fail, self._reader = acks, losses, metrics, hold, fail, reader

    def apply(self, message: Committed) -> bool:
        """-> whether the roster has changed."""
        machine, traced = self._machine, {}
        size = 0
        for entry, context in message.entries:
            size += len(entry.data or b"")
            if entry.index <= machine.applied[0]:
                self._skipped(context)
                continue
            if entry.extensions is not None and TRACING.on and (span := spans.apply(self._node, entry)) is not None:
                traced[entry.index] = span
            if context.__class__ is not Proposal:
                machine.apply(entry.index, entry.term, *self._reader.entry(entry))
                if context.__class__ is RosterProposal:
                    self._registrar.committed(context)
            else:
                own: Proposal = context
                placed = machine.apply(entry.index, entry.term, own.batches)
                self._proposals.ended(own)
                for batch, chunks, place in zip(own.batches, own.chunks, placed, strict=True):
                    lost = answer(chunks, batch.topic, entry.index, place, self._hold)
                    if lost:
                        self._losses.count("answers_lost", lost)
                self._metrics.commit_seconds(time.monotonic() - own.started, sum(len(b.records) for b in own.batches))
        outcome = self._outcomes.hand_out(message.entries[-1][0].index if message.entries else 0, len(message.entries), size, traced)
        self._acks.moved(outcome.next_seqs)
        return outcome.roster is not None

    def _skipped(self, context: Any) -> None:
        """A snapshot brought the outcome of an entry that was proposed here, when this node led: it is in the log, and its place is not told any more."""
        if context.__class__ is RosterProposal:
            self._registrar.committed(context)
        elif context.__class__ is Proposal:
            error = Indeterminate(
                "the publish took effect, but a snapshot took the place of its outcome: where it stands is not known here"
            )
            self._proposals.ended(context, error)
            self._fail(context.all_chunks(), error)
