"""The way from the Raft actor to the state machine: what is committed, what became of proposals, and questions.

Each proposal has a context: a future, which is resolved here, or something of the state machine's own, which goes back to it. Until there is a
state machine, what is committed is kept for it, or counts as applied where none will come.

Runs in the Raft actor's thread, but for `ask`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from coterie.actors.base import Ref
from coterie.actors.errors import CoterieError, Indeterminate
from coterie.actors.future import LightFuture
from coterie.actors.room_messages import Appended, Committed, ProposalsFailed
from coterie.proto.raft_messages import Entry


class SetSink:
    """The actor that gets Committed, Appended and ProposalsFailed from now on."""

    __slots__ = ("ref",)

    def __init__(self, ref: Ref) -> None:
        self.ref = ref


class Sink:
    """keep: what is committed is kept until `attach` says who gets it."""

    def __init__(self, keep: bool) -> None:
        self._ref: Ref | None = None
        self._kept: list[Any] | None = [] if keep else None
        self._appended: list[tuple[Any, int]] = []  # contexts that want to know their entry's index once it is on this disk, and that index

    def attach(self, ref: Ref) -> None:
        self._ref = ref
        kept, self._kept = self._kept, None
        if kept:
            ref.send(Committed(kept))

    def ask(self, question: Any) -> LightFuture | None:
        """Ask the state machine; any thread. None while there is none."""
        ref = self._ref
        return ref.ask(question, block=False) if ref is not None else None

    def want_appended(self, context: Any, index: int) -> None:
        self._appended.append((context, index))

    def stored(self) -> None:
        """What was proposed so far is on this server's disk."""
        if self._appended and self._ref is not None:
            self._ref.send(Appended(self._appended))
            self._appended = []

    def committed(self, committed: Sequence[tuple[Entry, Any]], applied_to: Callable[[int], object]) -> None:
        """applied_to(index): called where nobody will say how far it is."""
        ref = self._ref
        if ref is not None:
            ref.send(Committed(list(committed)))
        for entry, context in committed:
            if context.__class__ is LightFuture:
                context.set(entry.index)
        if self._kept is not None:
            self._kept.extend(committed)
        elif ref is None:
            applied_to(committed[-1][0].index)

    def fail(self, contexts: Sequence[Any], error: CoterieError) -> None:
        """These proposals came to nothing, or their outcome (Indeterminate) is unknown here."""
        for_sink = []
        for context in contexts:
            if context.__class__ is LightFuture:
                context.fail(error)
            elif context is not None:
                for_sink.append(context)
        self._appended = [] if isinstance(error, Indeterminate) else self._appended
        if for_sink and self._ref is not None:
            self._ref.send(ProposalsFailed(for_sink, error))
