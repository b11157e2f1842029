"""The tables fit the terminal: an address or a name is never broken while there is a way around it."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console, RenderableType

from coterie import cli_ask, cli_dead_letters, cli_tables
from tools.generate_screenshots import STATUS

LONG = "coterie-{}.coterie.orders.svc.cluster.local"


def drawn(document: dict[str, Any], width: int) -> list[str]:
    return render(cli_tables.status_view(document), width)


def render(view: RenderableType, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    cli_tables.show(view, console)
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


def test_dead_letters_are_counted_in_the_status() -> None:
    assert "dead letters: 2 of orders, 1 of stock; see clusterctl dead-letters" in drawn(
        STATUS | {"DeadLetters": {"orders": 2, "stock": 1}}, 120
    )
    assert not any("dead letters" in line for line in drawn(STATUS | {"DeadLetters": {}}, 120))


LETTER = {"letter": 3, "time": 0, "topic": "orders.created", "seq": 7, "node": "n1", "attempts": 10, "data": "Zm9ydHktdHdv"}


@pytest.mark.parametrize("width", [50, 80, 200])
def test_a_dead_letter_is_a_row_or_a_few_lines_and_whole(width: int) -> None:
    reason = "ValueError: " + "no order number " * 5
    lines = render(cli_dead_letters.view({"letters": [LETTER | {"reason": reason}], "next": 3}), width)
    assert max(map(len, lines)) <= width
    assert "orders.created" in " ".join(lines).split() and reason.strip() in " ".join(" ".join(lines).split())
    assert "forty-two" in lines[-2] and lines[-1] == "there are older ones: give a higher --limit"
    assert (lines[0].split()[:2] == ["letter", "time"]) == (width == 200)


def test_what_fits_no_terminal_is_folded_and_not_lost() -> None:
    text = "".join(line.strip() for line in drawn(at_long_names(), 30))
    assert "heard" in text and "cluster.local:17946" in "".join(text.split())


def test_topics_that_a_status_leaves_out_are_counted_below_the_others() -> None:
    document = cli_ask.topics_document(STATUS | {"TopicsLeftOut": 90_000})
    assert render(cli_tables.topics_view(document), 120)[-1] == "and 90000 more topics"
    assert "more topics" not in "\n".join(render(cli_tables.topics_view(cli_ask.topics_document(STATUS)), 120))
