"""`make reference`: `docs/images/*.svg`, what `clusterctl status`, `members` and `topics` show on a terminal, of one fixed cluster that lacks a node."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from coterie import cli_tables
from coterie.cli_ask import members_document, topics_document

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
WIDTH = 118

VOTER = {"State": "alive", "Suffrage": "voter"}
STATUS: dict[str, Any] = {
    "Healthy": True,
    "Term": 7,
    "LeaderID": "n1",
    "LeaderAddr": "10.0.0.1:17946",
    "Members": [
        {
            **VOTER,
            "ID": f"n{n}",
            "Addr": f"10.0.0.{n}:7946",
            "Meta": {"mgmt": f"10.0.0.{n}:17946"},
            "RaftAddr": f"10.0.0.{n}:9520",
            "MatchIndex": 4182 if n < 3 else 3977,
            "LastContact": {1: None, 2: 0.1, 3: 48.2}[n],
        }
        | ({"State": "failed"} if n == 3 else {})
        for n in (1, 2, 3)
    ],
    "Warnings": ["voters not heard: n3; one more failure stops all writes"],
    "AnsweredBy": "n1",
    "Topics": [
        {"Topic": "orders.created", "Seq": 3120, "Delivered": 3120, "RetainedFrom": 1, "Acked": {"n1": 3120, "n2": 3120, "n3": 2988}},
        {"Topic": "orders.shipped", "Seq": 1044, "Delivered": 1041, "RetainedFrom": 21, "Acked": {"n1": 1041, "n2": 1044, "n3": 989}},
    ],
}
SHOTS = {"status": STATUS, "members": members_document(STATUS), "topics": topics_document(STATUS)}


def picture(name: str) -> str:
    """As SVG, without fonts from elsewhere."""
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False, legacy_windows=False
    )
    console.print(f"$ clusterctl {name}", style="bold")
    console.print(getattr(cli_tables, f"{name}_view")(SHOTS[name]))
    svg = console.export_svg(title=f"clusterctl {name}", unique_id=name)
    svg = re.sub(r"\s*@font-face \{.*?\}\n", "\n", svg, flags=re.S).replace(
        "Fira Code, monospace", "ui-monospace, Menlo, Consolas, monospace"
    )
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name in SHOTS:
        (IMAGES / f"{name}.svg").write_text(picture(name))
        print((IMAGES / f"{name}.svg").relative_to(ROOT))
