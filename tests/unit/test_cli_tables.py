"""The tables fit the terminal: an address or a name is never broken while there is a way around it."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from coterie import cli_tables
from tools.generate_screenshots import STATUS

LONG = "coterie-{}.coterie.orders.svc.cluster.local"


def drawn(document: dict[str, Any], width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    cli_tables.show(cli_tables.status_view(document), console)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def at_long_names() -> dict[str, Any]:
    members = [
        member | {"RaftAddr": f"{LONG.format(n)}:9520", "Addr": f"10.0.0.{n}:7946", "Meta": {"mgmt": f"{LONG.format(n)}:17946"}}
        for n, member in enumerate(STATUS["Members"], 1)
    ]
    return STATUS | {"Members": members}


def addresses(document: dict[str, Any]) -> set[str]:
    return {address for member in document["Members"] for address in (member["Addr"], member["RaftAddr"], member["Meta"]["mgmt"])}


@pytest.mark.parametrize("width", [70, 80, 100, 120, 200])
@pytest.mark.parametrize("document", [STATUS, at_long_names()], ids=["addresses", "names"])
def test_every_address_stands_whole_at_every_width(document: dict[str, Any], width: int) -> None:
    lines = drawn(document, width)
    assert max(map(len, lines)) <= width
    assert addresses(document) <= {word for line in lines for word in line.split()}
    for name, state, part in (("n1", "alive", "leader"), ("n2", "alive", "voter"), ("n3", "failed", "voter")):
        assert [line for line in lines if re.match(rf"{name}\s+{state}\s+{part}\b", line)], lines


def test_one_row_a_member_where_there_is_room() -> None:
    (row,) = [line for line in drawn(STATUS, 110) if line.startswith("n3")]
    assert row.split() == ["n3", "failed", "voter", "10.0.0.3:9520", "10.0.0.3:7946", "10.0.0.3:17946", "3977", "48.2", "s", "ago"]


def test_what_fits_no_terminal_is_folded_and_not_lost() -> None:
    text = "".join(line.strip() for line in drawn(at_long_names(), 30))
    assert "heard" in text and "cluster.local:17946" in "".join(text.split())
