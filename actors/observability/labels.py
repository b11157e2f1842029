"""Which topics have series of their own: the first `most` that are seen, since nothing may grow with what an application names its topics.

Each labelled topic has some twenty series on the leader of three nodes; a hundred thousand topics would be more than a scrape, a Prometheus and the memory of
a node can take. Those beyond are shown together, as the topic `OTHERS`. A topic of that very name is always one of them, so that under one label there is never
a topic beside a sum.

First come, first served: a series that went to another topic later would be a counter that goes back. (The busiest ones lost for that reason.)
"""

from __future__ import annotations

from typing import Final

from coterie.transport.logs import Log

__all__ = ["MOST_TOPICS", "OTHERS", "TopicLabels"]

OTHERS: Final = "(other topics)"
MOST_TOPICS: Final = 256  # by default
LOG: Final = Log("coterie.metrics")


class TopicLabels:
    """Any thread may ask. most: topics with a label of their own."""

    def __init__(self, most: int = MOST_TOPICS) -> None:
        self._most, self._own = most, set[str]()
        self._said = False

    def of(self, topic: str) -> str:
        """The label of `topic`: its name, or OTHERS."""
        if topic in self._own:
            return topic
        if topic == OTHERS:
            return OTHERS
        if len(self._own) < self._most:  # two threads at once may let one more in, which does no harm
            self._own.add(topic)
            return topic
        if not self._said:
            self._said = True
            LOG.warning(
                "there are more than metric_topics=%d topics: from %r on they are counted together, as %r, in the metrics",
                self._most,
                topic,
                OTHERS,
            )
        return OTHERS
