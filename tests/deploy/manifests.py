"""The files under `deploy/` as values, and the commands in them as the processes that they would start."""

from __future__ import annotations

from typing import Any

import click
import yaml

from coterie import cli
from tests.product.commands import ROOT

COMPOSE = ROOT / "deploy/compose.yaml"
KUBERNETES = ROOT / "deploy/kubernetes/coterie.yaml"
DOCKERFILE = ROOT / "deploy/Dockerfile"


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return document


def kubernetes() -> dict[tuple[str, str], dict[str, Any]]:
    """(kind, name) -> object."""
    return {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(KUBERNETES.read_text())}


def variables() -> dict[str, set[str]]:
    """The variables that each command of `clusterctl` reads."""
    return {
        name: {parameter.envvar for parameter in command.params if isinstance(parameter.envvar, str)}
        for name, command in cli.commands.commands.items()
    }


def check_command(words: list[str], environment: dict[str, str]) -> None:
    """Raises click's error for a command line that `clusterctl` would not take, and AssertionError for a variable that it does not read."""
    command = cli.commands.commands[words[0]]
    ours = {name: value for name, value in environment.items() if name.startswith("COTERIE_")}
    assert set(ours) <= set().union(*variables().values()), ours
    given = list(words[1:])
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.required and parameter.envvar in ours:
            given += [parameter.opts[0], ours[str(parameter.envvar)]]
    command.make_context(words[0], given)
