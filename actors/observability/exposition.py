"""The body of GET /metrics: the plain text format (0.0.4), whatever the scraper asks for.

OpenMetrics is not spoken: in it `_total` is the ending of counters alone, and the contract has a gauge of that name (`go_cluster_members_total`). A scraper
that would like OpenMetrics offers the plain text beside it, and reads in the Content-Type which of them it got.

The client library adds a `…_created` series to each counter and histogram, which the contract does not have; its own switch for that is global to the
process, and not ours to set. So they are left out here.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

__all__ = ["exposition"]


def exposition(registry: CollectorRegistry) -> bytes:
    """Everything in `registry`, as a scraper reads it."""
    return generate_latest(_WithoutCreated(registry))


class _WithoutCreated:
    """A registry's metrics without the `…_created` series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
