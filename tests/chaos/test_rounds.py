"""A few rounds of the campaign on three nodes, and its network by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos import campaign
from tests.chaos.network import Network
from tests.deploy.networks import reason_not_to
from tests.product.wait import wait_for

NAMES = ("n1", "n2", "n3")


def reaches(network: Network, sender: str, receiver: str) -> bool:
    """Whether a datagram gets through, tried."""
    listen = "import socket; s = socket.socket(2, 2); s.bind(('', 9)); s.settimeout(0.5); print(flush=True); s.recv(9)"
    send = f"import socket; socket.socket(2, 2).sendto(b'x', ('{network.addresses[receiver]}', 9))"
    with subprocess.Popen(
        network.at(receiver, sys.executable, "-c", listen), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as listener:
        assert listener.stdout is not None
        listener.stdout.readline()
        subprocess.run(network.at(sender, sys.executable, "-c", send), check=True)
        return listener.wait(10) == 0


def test_a_link_is_cut_one_way_and_mended() -> None:
    if reason := reason_not_to():
        pytest.skip(reason)
    with Network(*NAMES) as network:
        links = [(a, b) for a in NAMES for b in NAMES if a != b]
        for a, b in links:
            wait_for(lambda a=a, b=b: reaches(network, a, b), 10, f"{a} reaches {b}")  # type: ignore[misc]
        network.cut([("n1", "n2"), ("n3", "n1")])
        assert {link for link in links if not reaches(network, *link)} == {("n1", "n2"), ("n3", "n1")}
        network.mend()
        assert all(reaches(network, *link) for link in links)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_some_rounds_of_faults_lose_nothing(tmp_path: Path) -> None:
    """The short form of `make chaos`. Without root it has processes alone to kill and stop, and says so."""
    figures = campaign.run(tmp_path, 3, 8, 20, print)
    print("\n".join(figures.lines()))
    assert figures.outcomes["ok"] > 500
