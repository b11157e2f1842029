"""`clusterctl` as a program: what it imports, how it helps and completes, and that it mounts in another's command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest
import typer
from click.testing import CliRunner
from typer.testing import CliRunner as TyperRunner

from coterie import __version__, cli
from coterie.actors.management.http_app import http_app
from coterie.transport.http_server import HttpServer
from tests.product.management_world import FakeCluster

# What a question must never import: a node, a server, another client, and what draws tables.
HEAVY = {
    "grpc",
    "uvicorn",
    "starlette",
    "httpx",
    "lmdb",
    "prometheus_client",
    "rich",
    "asyncio",
    "pykka",
    "typer",
    "pydantic",
    "opentelemetry",
}


@pytest.fixture(scope="module")
def addr() -> Iterator[str]:
    server = HttpServer("127.0.0.1:0", http_app(FakeCluster().service()), "n1")
    yield f"127.0.0.1:{server.port}"
    server.close()


def commands() -> dict[str, click.Command]:
    """Every command by its words, groups within the group too."""
    found: dict[str, click.Command] = {}

    def walk(words: tuple[str, ...], command: click.Command) -> None:
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                walk((*words, name), inner)
        else:
            found[" ".join(words)] = command

    walk((), cli.commands)
    return found


# -- imports ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["status"], ["members"], ["topics"], ["publish", "t", "x"], ["write", "op"], ["leave", "--id", "n2"]])
def test_a_question_starts_without_the_weight_of_a_node(addr: str, words: list[str]) -> None:
    code = f"import sys; from coterie import cli; code = cli._run(cli.commands, {[*words, '--addr', addr]!r}, 'clusterctl');"
    code += f"heavy = {HEAVY!r} & set(sys.modules); assert not heavy, heavy; sys.exit(code)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)


def test_a_table_costs_rich_and_no_more(addr: str) -> None:
    code = (
        f"import sys; from coterie import cli; cli._run(cli.commands, ['status', '--output', 'table', '--addr', {addr!r}], 'clusterctl');"
    )
    code += f"heavy = {HEAVY - {'rich'}!r} & set(sys.modules); assert not heavy, heavy"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("words", "redirected", "code", "said"),
    [
        ("status", ">&-", 0, ""),
        ("status", ">&- 2>&-", 0, ""),
        ("status --addr 127.0.0.1:1", ">&- 2>&-", 2, ""),
        ("status --output table", "| true", 0, ""),
        ("status", ">/dev/full", 2, "No space left on device"),
    ],
)
def test_an_answer_that_cannot_be_written_is_no_traceback(addr: str, words: str, redirected: str, code: int, said: str) -> None:
    """Who closes standard output wants the exit code alone."""
    command = f"{sys.executable} -m coterie.cli {words} {redirected}"
    environment = os.environ | {"COTERIE_ADDR": addr}
    ran = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == code, ran.stderr
    assert said in ran.stderr and ran.stderr.count("\n") == bool(said)


# -- help -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", sorted(commands()))
def test_every_command_says_what_it_does_and_shows_an_example_that_parses(words: str) -> None:
    command = commands()[words]
    assert command.help
    examples = re.findall(r"^  clusterctl (.+?)(?: [|<>].*)?$", command.epilog or "", re.M)
    assert examples, f"{words}: no example"
    for example in examples:
        given = example.split()
        assert given[: len(words.split())] == words.split(), example
        command.make_context(words, given[len(words.split()) :])


@pytest.mark.parametrize("words", sorted(commands()))
def test_every_flag_has_a_text(words: str) -> None:
    for parameter in commands()[words].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{words}: {parameter.opts}"
            assert parameter.envvar in (None, "COTERIE_" + parameter.opts[0][2:].upper().replace("-", "_"))


def test_the_list_of_commands_breaks_off_no_sentence() -> None:
    said = CliRunner().invoke(cli.commands, ["--help"], terminal_width=80).output.partition("Commands:")[2]
    assert "dead-letters" in said and "..." not in said


def test_the_flags_of_the_contract_have_variables() -> None:
    run = {parameter.opts[0]: parameter for parameter in cli.commands.commands["run"].params}
    assert [flag for flag, parameter in run.items() if not parameter.envvar] == []


def test_version() -> None:
    ran = CliRunner().invoke(cli.commands, ["version"])
    assert json.loads(ran.stdout)["version"] == __version__
    assert CliRunner().invoke(cli.commands, ["version", "--output", "table"]).stdout == f"coterie {__version__}\n"
    assert CliRunner().invoke(cli.commands, ["--version"]).stdout == f"coterie {__version__}\n"


@pytest.mark.parametrize(
    ("words", "variable", "value", "said"),
    [
        (
            ["run", "--id", "n1"],
            "COTERIE_MAX_VOTERS",
            "x",
            "Invalid value for '--max-voters' (from COTERIE_MAX_VOTERS): 'x' is not a valid integer",
        ),
        (["run", "--id", "n1"], "COTERIE_MGMT_ADDR", "foo", "--mgmt-addr (from COTERIE_MGMT_ADDR)='foo': "),
        (["run", "--id", "n1", "--mgmt-addr", "foo"], "COTERIE_MGMT_ADDR", "127.0.0.1:0", "--mgmt-addr='foo': "),
        (["status"], "COTERIE_TLS_ENABLE", "maybe", "Invalid value for '--tls-enable' (from COTERIE_TLS_ENABLE): "),
    ],
)
def test_a_bad_value_from_a_variable_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], variable: str, value: str, said: str
) -> None:
    """Who sees a flag that they did not give would look for it in vain."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert (ended.value.code, capsys.readouterr().err.startswith(f"clusterctl: {said}")) == (2, True)


# -- completion -------------------------------------------------------------------------------------------------------------------


def completed(shell: str, words: str) -> list[str]:
    """What the shell's script would be told for a line that ends in its last word."""
    given = words.split(" ")
    asked = {
        "COMP_WORDS": words,
        "COMP_CWORD": given[-1] if shell == "fish" else str(len(given) - 1),
        "_CLUSTERCTL_COMPLETE": f"{shell}_complete",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "coterie.cli"], env=os.environ | asked, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return re.split(r"[\n,\t]", ran.stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    script = CliRunner().invoke(cli.commands, ["completion", shell]).stdout
    assert "_CLUSTERCTL_COMPLETE" in script and f"{shell}_complete" in script
    assert {"status", "members", "topics"} <= set(completed(shell, "clusterctl "))
    assert "status" in completed(shell, "clusterctl sta") and "members" not in completed(shell, "clusterctl sta")
    assert "--raft-addr" in completed(shell, "clusterctl join --ra")
    assert {"table", "json"} <= set(completed(shell, "clusterctl status --output "))


# -- in another's command ---------------------------------------------------------------------------------------------------------


def in_typer(*arguments: str) -> Any:
    application = typer.Typer()
    application.add_typer(cli.app, name="cluster")
    return TyperRunner().invoke(application, ["cluster", *arguments])


def in_click(*arguments: str) -> Any:
    application = click.Group("service")
    application.add_command(cli.commands, "cluster")
    return CliRunner().invoke(application, ["cluster", *arguments])


@pytest.mark.parametrize("mounted", [in_typer, in_click])
def test_the_commands_mount_in_another_application(addr: str, mounted: Any) -> None:
    ran = mounted("status", "--addr", addr)
    assert (ran.exit_code, json.loads(ran.stdout)["LeaderID"], ran.stderr) == (0, "n1", "")
    ran = mounted("status", "--addr", "127.0.0.1:1")
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "127.0.0.1:1 cannot be asked" in ran.stderr
    assert "Traceback" not in ran.stderr
    ran = mounted("status", "--adr", addr)
    assert ran.exit_code == 2
    assert "--addr" in ran.stderr
    ran = mounted("publish", "t", "--addr", addr, "--", "--data-that-looks-like-a-flag")
    assert (ran.exit_code, json.loads(ran.stdout)["seq"]) == (0, 1)
    ran = mounted("status", "--help")
    assert ran.exit_code == 0
    assert "--watch" in ran.stdout and "Examples:" in ran.stdout
    assert "members" in mounted("--help").stdout


def test_a_name_that_the_module_does_not_have_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="bogus"):
        _ = cli.bogus
