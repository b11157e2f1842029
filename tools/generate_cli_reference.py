"""`make reference`: the second part of `docs/cli.md`, from the commands of `clusterctl`. What stands above the mark is written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from coterie.cli import commands

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cli.md"
MARK = "<!-- Made by `make reference` from the commands; do not edit below. -->\n"


def page() -> str:
    by_hand, mark, _ = PAGE.read_text().partition(MARK)
    if not mark:
        raise ValueError(f"{PAGE.name} has no line {MARK.strip()!r}")
    return by_hand + MARK + "".join(_command(words, command) for words, command in all_commands(commands, ("clusterctl",)))


def all_commands(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its words, in the order of the help; those of groups within the group too."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from all_commands(command, (*words, name))
        else:
            yield (*words, name), command


def _command(words: tuple[str, ...], command: click.Command) -> str:
    name = " ".join(words)
    arguments = [parameter.make_metavar(click.Context(command)) for parameter in command.params if isinstance(parameter, click.Argument)]
    text = f"\n### {name}\n\n{_prose(command.help or '')}\n\n"
    text += f"```text\n{' '.join([name, '[OPTIONS]', *arguments])}\n```\n\n"
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    if options:
        text += "| flag | variable | default | |\n|---|---|---|---|\n" + "".join(map(_row, options)) + "\n"
    examples = [line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  ")]
    return text + "```text\n" + "\n".join(f"$ {example}" for example in examples) + "\n```\n"


def _prose(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.replace("\b", "").split("\n\n")).strip()


def _row(option: click.Option) -> str:
    kind = option.type
    if option.is_flag:
        value = ""
    elif isinstance(kind, click.Choice):
        value = " " + "\\|".join(map(str, kind.choices))
    else:
        value = "" if (option.metavar or "").startswith("[") else " "
        value += option.metavar or kind.name.upper()
    default: Any = option.show_default if isinstance(option.show_default, str) else option.default
    shown = (
        "required"
        if option.required
        else f"`{default}`"
        if isinstance(default, (str, int)) and not option.is_flag and default != ""
        else ""
    )
    variable = f"`{option.envvar}`" if option.envvar else ""
    return f"| `{option.opts[0]}{value}` | {variable} | {shown} | {(option.help or '').replace('|', '&#124;')} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE.relative_to(ROOT))
