"""What ends a command, and with which exit code."""

from __future__ import annotations

from typing import Final

import click

WELL: Final = 0
REFUSED: Final = 1  # refused, or degraded
UNUSABLE: Final = 2  # no quorum, nobody answers, wrong usage or configuration


class CommandError(click.ClickException):
    """The text is shown to the operator in one line; `code` is the exit code, also where the commands are mounted in another application."""

    def __init__(self, text: str, code: int = UNUSABLE) -> None:
        super().__init__(" ".join(text.split()))
        self.code = code
        vars(self)["exit_code"] = code  # click's, where it is one for the whole class


class NoAnswer(CommandError):
    """An address gave no answer. sent: the request may have arrived there, so only one that changes nothing may be tried elsewhere."""

    def __init__(self, text: str, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent
