"""What ends a command, and with which exit code."""

from __future__ import annotations

from typing import Final

REFUSED: Final = 1  # refused, or degraded
UNUSABLE: Final = 2  # no quorum, nobody answers, wrong usage or configuration


class CommandError(Exception):
    """The text is shown to the operator in one line; `code` is the exit code."""

    def __init__(self, text: str, code: int = UNUSABLE) -> None:
        super().__init__(text)
        self.code = code
