"""What happened is a warning for a while."""

from __future__ import annotations

from coterie.actors.node.lately import LATELY, Lately


def test_what_happened_is_said_for_a_while_after_the_latest_time() -> None:
    lately = Lately()
    lately.happened("events", "events crashed", 10.0)
    lately.happened("management", "management crashed", 20.0)
    lately.happened("events", "events crashed again", 30.0)
    assert lately.warnings(31.0) == ["events crashed again", "management crashed"]
    assert lately.warnings(21.0 + LATELY) == ["events crashed again"]
    assert lately.warnings(31.0 + LATELY) == []


def test_a_count_is_news_when_it_has_grown() -> None:
    lately = Lately()
    lately.counted("records", 0, "records were dropped", 0.0)
    assert lately.warnings(1.0) == []
    lately.counted("records", 5, "records were dropped", 2.0)
    lately.counted("records", 5, "records were dropped", 500.0)
    assert lately.warnings(501.0) == ["5 records were dropped"]
    assert lately.warnings(3.0 + LATELY) == [], "it was said again meanwhile, and is no news"
    lately.counted("records", 6, "records were dropped", 5000.0)
    assert lately.warnings(5001.0) == ["6 records were dropped"]
