"""The commands as a typer application, for a service whose own command is one.

Typer keeps a copy of click of its own since version 0.26, so a command of click cannot stand among its commands. Each command here takes its arguments as they
come and gives them to the command of click, which parses them, helps and complains as it does in `clusterctl`. (Declaring the commands with typer instead
lost: it imports pydantic, which takes longer than asking a node for its status.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

try:
    import typer
    from typer.core import TyperCommand
except ImportError as error:  # pragma: no cover - it is one of the project's own development dependencies
    raise ImportError("coterie.cli.app is for applications made with typer, which is not installed: pip install typer") from error


class _AsTheyCome(TyperCommand):
    """Parses nothing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.args = list(args)
        return []


def typer_app(commands: click.Group, run: Callable[[click.Command, list[str], str], int]) -> typer.Typer:
    """run: carries out a command with its arguments under a name, says what is wrong, gives the exit code."""
    app = typer.Typer(name=commands.name, help=commands.help, no_args_is_help=True)

    def passing(command: click.Command) -> Callable[[typer.Context], None]:
        def passed(ctx: typer.Context) -> None:
            code = run(command, ctx.args, ctx.command_path)
            if code:
                raise typer.Exit(code)

        return passed

    for name, command in commands.commands.items():
        app.command(name, cls=_AsTheyCome, help=command.get_short_help_str(200), add_help_option=False)(passing(command))
    return app
