"""The flags of `clusterctl`: each one's name, text and variable, once for all commands that take it.

A flag's variable is `COTERIE_` and its name in capitals: `--raft-addr` is `COTERIE_RAFT_ADDR`. What belongs to one request alone (`--message-id`, `--header`,
`--count`…) has none, so that a forgotten variable does not change what is published.

A group of flags (`TLS`, `DISCOVERY`…) is one decorator; `asking` gathers the flags about whom to ask into one `Target`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from coterie.cli_target import Target

DEFAULT_ADDR: Final = "127.0.0.1:17946"

F = TypeVar("F", bound=Callable[..., Any])


def flag(name: str, text: str, *, variable: bool = True, **more: Any) -> Callable[[F], F]:
    """One flag. more: what `click.option` takes."""
    return click.option(f"--{name}", help=text, envvar="COTERIE_" + name.upper().replace("-", "_") if variable else None, **more)


def together(*decorators: Callable[[Any], Any]) -> Callable[[F], F]:
    """Several flags as one decorator; they are listed in this order."""
    return lambda function: functools.reduce(lambda f, decorate: decorate(f), reversed(decorators), function)


def switch(name: str, text: str) -> Callable[[F], F]:
    return flag(name, text, is_flag=True, default=None)


ID: Final = flag("id", "Id of the node.", required=True, metavar="ID")
PROTO: Final = flag("mgmt-proto", "Protocol spoken at --addr.", type=click.Choice(["http", "grpc"]), default="http", show_default=True)
OUTPUT: Final = flag("output", "The default is a table on a terminal, else JSON.", type=click.Choice(["table", "json"]), default=None)
TLS: Final = together(
    switch("tls-enable", "Speak TLS."),
    flag("tls-ca", "Authorities that the other side is verified by, in PEM.", metavar="FILE"),
    flag("tls-cert", "Own certificate, with its chain, in PEM.", metavar="FILE"),
    flag("tls-key", "Private key of --tls-cert, in PEM.", metavar="FILE"),
    switch("tls-skip-verify", "Take any certificate of a server."),
    flag("tls-server-name", "What a server's certificate must name, instead of its address.", metavar="NAME"),
)
TLS_NAMES: Final = ("tls_enable", "tls_ca", "tls_cert", "tls_key", "tls_skip_verify", "tls_server_name")
DISCOVERY: Final = together(
    flag("discovery", "Where seeds come from, beside --join: static, dns or file.", show_default="static", metavar="KIND"),
    flag("dns-names", "Names to look up: _service._proto.domain (SRV), a name (with --dns-port), host:port.", metavar="NAMES"),
    flag("dns-port", "Gossip port of names that are looked up for addresses.", show_default="7946", type=int, metavar="PORT"),
    flag("dns-servers", "DNS servers to ask, by IP address; none: those of the machine.", metavar="ADDRESSES"),
    flag("disc-refresh", "Pause between looks for seeds: 1500ms, 5s, 1m.", show_default="5s", metavar="DURATION"),
    flag("file-path", "File with seeds, or a pattern of files: one a line or with commas, # comments.", metavar="PATH"),
    flag("file-env", "Environment variable with seeds, which wins over the file when it is set.", metavar="NAME"),
)
NODE: Final = together(
    flag("raft-addr", "Address to bind for Raft.", show_default=":9520", metavar="HOST:PORT"),
    flag("mem-bind", "Address to bind for gossip, UDP and TCP.", show_default=":7946", metavar="HOST:PORT"),
    flag("mem-adv", "Gossip address that others are told.", show_default="the one that is bound", metavar="HOST:PORT"),
    flag("join", "Gossip addresses of other nodes: host:port,host:port.", metavar="ADDRESSES"),
    flag("mgmt-addr", "Address to bind for the management API.", show_default=":17946", metavar="HOST:PORT"),
    flag("mgmt-proto", "Protocol on the management address.", show_default="http", type=click.Choice(["http", "grpc"])),
    flag(
        "gossip-key", "Keys of the gossip, in base64 or hex, the one that encrypts first; the variable hides them better.", metavar="KEYS"
    ),
    flag("cluster-name", "Label of the gossip, the same on every node.", metavar="NAME"),
    flag("http-addr", "Address to bind for HTTP, when --mgmt-proto is grpc.", show_default="the next port up", metavar="HOST:PORT"),
    flag("grpc-addr", "Address to bind for gRPC, when --mgmt-proto is http.", show_default="the next port up", metavar="HOST:PORT"),
)
QUORUM: Final = together(
    flag("bootstrap-expect", "Form a new cluster with so many empty nodes, once they see one another.", type=int, metavar="N"),
    switch("auto-join", "Ask for a place in the quorum; as the leader, give it to who asks."),
    flag("max-voters", "With --auto-join: at most so many voters, an odd number.", show_default="5", type=int, metavar="N"),
    flag("min-voters", "With --remove-dead-after: leave at least so many voters.", show_default="3", type=int, metavar="N"),
    flag(
        "remove-dead-after", "Take servers out of the quorum that nobody has heard for so long.", show_default="never", metavar="DURATION"
    ),
)
LOG_LEVEL: Final = flag(
    "log-level", "What goes to standard error.", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
LOG_FORMAT: Final = flag(
    "log-format",
    "text for people, json for machines: one object a line.",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
)
WATCH: Final = together(
    flag(
        "watch",
        "Look again every 2 s, or as often as given; Ctrl-C ends it. Where no terminal is, a JSON document a line.",
        variable=False,
        is_flag=False,
        flag_value="2s",
        metavar="[=DURATION]",
    ),
    flag("count", "With --watch: end after so many looks.", variable=False, type=click.IntRange(min=1), metavar="N"),
)


def asking(timeout: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The flags about whom to ask, and how; the command gets them as its first argument, a `Target`. timeout: the default of --timeout."""
    flags = together(
        flag(
            "addr",
            "Management address of a node, host:port; of several, with commas between them, the next is asked where one gives no answer.",
            default=DEFAULT_ADDR,
            show_default=True,
            metavar="ADDRESSES",
        ),
        flag(
            "timeout",
            "How long to wait for each answer: seconds, or 1500ms, 3s, 1m.",
            default=timeout,
            show_default=True,
            metavar="DURATION",
        ),
        PROTO,
        TLS,
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @flags
        @functools.wraps(command)
        def gathered(addr: str, timeout: str, mgmt_proto: str, **rest: Any) -> Any:
            tls = {name: rest.pop(name) for name in TLS_NAMES}
            return command(Target.of(addr, timeout, mgmt_proto, tls), **rest)

        return gathered

    return decorate


def source(parameter: str) -> str:
    """ " (from COTERIE_…)" when the value of this parameter (its name, with underscores) came from its variable, else ""."""
    context = click.get_current_context(silent=True)
    if context is None or context.get_parameter_source(parameter) is not ParameterSource.ENVIRONMENT:
        return ""
    return f" (from {next(p.envvar for p in context.command.params if p.name == parameter)})"


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given, by flag or variable."""
    return {name: value for name, value in flags.items() if value is not None and value is not False}


def command(name: str, *examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command of `clusterctl`; its examples end its help."""
    return click.command(name, epilog="\b\nExamples:\n" + "\n".join(f"  clusterctl {name} {example}".rstrip() for example in examples))


def end(code: int) -> None:
    """Ends a command with this exit code, also where it is mounted in another application."""
    if code:
        raise click.exceptions.Exit(code)
