"""How long messages wait for an actor: depth and age of its inbox, without a cost per message.

Every few seconds the supervisor has a sample put into each inbox: pykka's own question for an attribute, which every actor answers without knowing of it. The
time until the answer is the inbox's age: what any other message had to wait at that moment. A sample that has no answer yet is as old as it is when
somebody looks, so an actor that stands still (a handler in an endless call, a log on a disk that hangs) shows an age that grows. The depth is read when
somebody looks.

A timestamp per message, or per burst, lost: the first costs where a publisher waits, and neither shows an actor that never comes to its next burst.

The supervisor samples itself too; when it stands still nobody puts samples in, and how long they are overdue is its age.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import pykka
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pykka.messages import ProxyGetAttr

__all__ = ["Inboxes"]

_QUESTION: Final = ProxyGetAttr(attr_path=("actor_urn",))


class _Sample:
    """The last sample of one actor. sent: when, None once it is answered; age: seconds it took, None before the first answer."""

    __slots__ = ("age", "concern", "ref", "sent")

    def __init__(self, concern: str, ref: Any) -> None:
        self.concern, self.ref = concern, ref
        self.sent: float | None = None
        self.age: float | None = None


class Inboxes(Collector):
    """`look` is called by one thread, every `every` seconds; `collect` by any. sampler: the concern of who calls `look`."""

    def __init__(self, sampler: str, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._sampler, self._every, self._clock = sampler, every, clock
        self._samples: dict[str, _Sample] = {}  # by the actor's urn; replaced, never changed: readers need no lock
        self._due: float | None = None

    def look(self, actors: Iterable[tuple[str, pykka.ActorRef[Any]]]) -> None:
        """Put a sample into the inbox of each of `actors`, (concern, reference); one that has not answered the last one gets no second. Others are forgotten."""
        self._samples = {ref.actor_urn: self._samples.get(ref.actor_urn) or _Sample(concern, ref) for concern, ref in actors}
        for sample in self._samples.values():
            if sample.sent is None:
                sample.sent = sent = self._clock()
                asked: Any = sample.ref.ask(_QUESTION, block=False)
                asked.on_done(partial(self._answered, sample, sent))
        self._due = self._clock() + self._every

    def _answered(self, sample: _Sample, sent: float) -> None:
        """In the thread of the actor that was asked."""
        sample.age, sample.sent = self._clock() - sent, None

    def ages(self) -> dict[str, float]:
        """concern -> seconds; of several actors of one concern (the subscribers), the oldest."""
        now = self._clock()
        ages: dict[str, float] = {}
        for sample in self._samples.values():
            sent, age = sample.sent, sample.age
            if sent is not None:
                age = max(age or 0.0, now - sent)
            if age is not None:
                ages[sample.concern] = max(age, ages.get(sample.concern, 0.0))
        if self._due is not None and now > self._due:
            ages[self._sampler] = max(now - self._due, ages.get(self._sampler, 0.0))
        return ages

    def depths(self) -> dict[str, int]:
        """concern -> messages; of several actors of one concern, the longest inbox."""
        depths: dict[str, int] = {}
        for sample in self._samples.values():
            depths[sample.concern] = max(sample.ref.actor_inbox.qsize(), depths.get(sample.concern, 0))
        return depths

    def collect(self) -> Iterable[Metric]:
        depth = GaugeMetricFamily("coterie_inbox_depth", "Messages waiting for an actor", labels=["concern"])
        for concern, messages in self.depths().items():
            depth.add_metric([concern], messages)
        age = GaugeMetricFamily(
            "coterie_inbox_age_seconds", "How long a message waits for an actor, by the last sample", labels=["concern"]
        )
        for concern, seconds in self.ages().items():
            age.add_metric([concern], seconds)
        return [depth, age]
