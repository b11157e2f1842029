"""Fixtures for the tests of a service. In `conftest.py`:

    pytest_plugins = ["coterie.pytest_plugin"]

`coterie_cluster` is a `LocalCluster` of three nodes without a handler, for one test; `coterie_clusters` makes others, e.g. `coterie_clusters(handler=Orders)`, and
closes them after the test.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from coterie.testing import LocalCluster


@pytest.fixture
def coterie_clusters() -> Iterator[Callable[..., LocalCluster]]:
    """Makes clusters; arguments as of `LocalCluster`."""
    with contextlib.ExitStack() as opened:
        yield lambda *args, **kwargs: opened.enter_context(LocalCluster(*args, **kwargs))


@pytest.fixture
def coterie_cluster(coterie_clusters: Callable[..., LocalCluster]) -> LocalCluster:
    """Three nodes, formed and healthy."""
    return coterie_clusters()
