"""Warnings about what happened, beside those about what is so: an actor that crashed, log records that were lost. Pure.

They are said for `LATELY` seconds after the latest time; then they are history, which the log and the metrics keep. A status that warns for ever of what was mended
long ago would say *degraded* for ever, and nobody would look at it any more.
"""

from __future__ import annotations

from typing import Final

LATELY: Final = 900.0  # seconds; as long as the alerts of deploy/prometheus look back


class Lately:
    """Of one thread. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, str]] = {}  # what it is about -> (when, in words)
        self._counts: dict[str, int] = {}

    def happened(self, about: str, text: str, now: float) -> None:
        self._said[about] = (now, text)

    def counted(self, about: str, count: int, text: str, now: float) -> None:
        """It has happened `count` times so far; it is news when that is more than before."""
        if count > self._counts.get(about, 0):
            self._counts[about] = count
            self._said[about] = (now, f"{count} {text}")

    def warnings(self, now: float) -> list[str]:
        self._said = {about: said for about, said in self._said.items() if now - said[0] < LATELY}
        return [text for _, text in self._said.values()]
