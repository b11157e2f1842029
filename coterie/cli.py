"""`clusterctl`: run a node, ask a cluster, change its quorum.

`status`, `join` and `leave` start fast: they import nothing of the cluster, and speak HTTP with the standard library (`http.client` is imported in
17 ms where httpx takes 85).
What a command prints on standard output is its answer: JSON, or a table on a terminal. All else goes to standard error, in one line, never as a traceback.

Exit codes: 0 well; 1 degraded (status), or refused (join, leave); 2 no quorum, nobody answers, wrong usage or configuration, or a node that
cannot start. A node that fails later ends with 1.

The commands can be mounted in a service's own typer application: `my_app.add_typer(coterie.cli.app, name="cluster")`. Every flag can be given in the environment
as `COTERIE_` and its name in capitals (`--raft-addr`: `COTERIE_RAFT_ADDR`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from coterie.cli_errors import REFUSED, UNUSABLE, CommandError

__all__ = ["app", "main"]

DEFAULT_ADDR: Final = "127.0.0.1:17946"

app = typer.Typer(
    name="clusterctl",
    help="Run a node of a coterie cluster, ask a cluster, change its quorum.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _flag(name: str, text: str, **more: Any) -> Any:
    return typer.Option(f"--{name}", help=text, envvar="COTERIE_" + name.upper().replace("-", "_"), show_envvar=False, **more)


Id = Annotated[str, _flag("id", "Id of the node.")]
Addr = Annotated[str, _flag("addr", "Management address of a node, host:port.")]
Timeout = Annotated[str, _flag("timeout", "How long to wait for the answer: seconds, or 1500ms, 3s, 1m.")]
Proto = Annotated[str, _flag("mgmt-proto", "Protocol spoken at --addr: http or grpc.")]
Output = Annotated[str, _flag("output", "table or json; the default is a table on a terminal, else JSON.")]
Text = str | None
Switch = bool | None
TlsEnable = Annotated[Switch, _flag("tls-enable", "TLS (not in this version).")]
TlsCa = Annotated[Text, _flag("tls-ca", "CA certificate (not in this version).")]
TlsCert = Annotated[Text, _flag("tls-cert", "Certificate (not in this version).")]
TlsKey = Annotated[Text, _flag("tls-key", "Private key (not in this version).")]
TlsSkip = Annotated[Switch, _flag("tls-skip-verify", "Do not verify the server (not in this version).")]
TlsName = Annotated[Text, _flag("tls-server-name", "Expected name of the server (not in this version).")]


@app.command()
def run(
    id: Id,  # noqa: A002 - the flag's name
    raft_addr: Annotated[Text, _flag("raft-addr", "Raft bind address.")] = None,
    mem_bind: Annotated[Text, _flag("mem-bind", "Gossip bind address.")] = None,
    mem_adv: Annotated[Text, _flag("mem-adv", "Gossip address that others are told.")] = None,
    join: Annotated[Text, _flag("join", "Gossip addresses of other nodes: host:port,host:port.")] = None,
    mgmt_addr: Annotated[Text, _flag("mgmt-addr", "Management bind address.")] = None,
    mgmt_proto: Annotated[Text, _flag("mgmt-proto", "Protocol on the management address: http or grpc.")] = None,
    http_addr: Annotated[Text, _flag("http-addr", "HTTP bind address, when --mgmt-proto is grpc.")] = None,
    grpc_addr: Annotated[Text, _flag("grpc-addr", "gRPC bind address, when --mgmt-proto is http.")] = None,
    discovery: Annotated[Text, _flag("discovery", "static (dns and file: not in this version).")] = None,
    dns_names: Annotated[Text, _flag("dns-names", "Names to look up (not in this version).")] = None,
    dns_port: Annotated[int | None, _flag("dns-port", "Gossip port of the names (not in this version).")] = None,
    disc_refresh: Annotated[Text, _flag("disc-refresh", "How often to discover anew (not in this version).")] = None,
    file_path: Annotated[Text, _flag("file-path", "File with seeds (not in this version).")] = None,
    file_env: Annotated[Text, _flag("file-env", "Variable with seeds (not in this version).")] = None,
    tls_enable: TlsEnable = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_skip_verify: TlsSkip = None,
    tls_server_name: TlsName = None,
    trace: Annotated[Switch, _flag("trace", "Print traces (not in this version).")] = None,
    bootstrap: Annotated[Switch, _flag("bootstrap", "Form a new cluster, unless there is one in --data.")] = None,
    data: Annotated[Text, _flag("data", "Directory of the node's durable state; none: all in memory.")] = None,
    log_level: Annotated[str, _flag("log-level", "debug, info, warning or error.")] = "info",
) -> None:
    """Run a node until SIGTERM or SIGINT; a second signal ends it at once."""
    given = {name: value for name, value in locals().items() if value is not None and value is not False and name != "log_level"}
    from coterie.cli_run import run_node

    run_node(given, log_level)


@app.command()
def status(addr: Addr = DEFAULT_ADDR, timeout: Timeout = "3s", output: Output = "", mgmt_proto: Proto = "http") -> None:
    """Show the cluster as a node sees it. Exit code: 0 well, 1 degraded, 2 no quorum or no answer."""
    from coterie.cli_ask import ask_status

    code = ask_status(addr, timeout, output, mgmt_proto)
    if code:
        raise typer.Exit(code)


@app.command()
def join(
    id: Id,  # noqa: A002 - the flag's name
    raft_addr: Annotated[str, _flag("raft-addr", "Raft address of the node that joins, host:port.")],
    addr: Addr = DEFAULT_ADDR,
    mgmt_proto: Proto = "http",
    timeout: Timeout = "15s",
    output: Output = "",
    tls_enable: TlsEnable = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_skip_verify: TlsSkip = None,
    tls_server_name: TlsName = None,
) -> None:
    """Make a node a voter. Any node may be asked: an answer that names the leader is followed once."""
    from coterie.cli_ask import ask_change, refuse_tls

    refuse_tls(locals())
    ask_change("join", {"id": id, "raftAddr": raft_addr}, addr, mgmt_proto, timeout, output)


@app.command()
def leave(
    id: Id,  # noqa: A002 - the flag's name
    addr: Addr = DEFAULT_ADDR,
    mgmt_proto: Proto = "http",
    timeout: Timeout = "15s",
    output: Output = "",
    tls_enable: TlsEnable = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_skip_verify: TlsSkip = None,
    tls_server_name: TlsName = None,
) -> None:
    """Take a node out of the quorum. Any node may be asked."""
    from coterie.cli_ask import ask_change, refuse_tls

    refuse_tls(locals())
    ask_change("leave", {"id": id}, addr, mgmt_proto, timeout, output)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: runs the command and ends the process with its code."""
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    try:
        code = app(arguments, prog_name="clusterctl", standalone_mode=False)
    except CommandError as error:
        return _complain(str(error), error.code)
    except typer.Abort:
        return _complain("interrupted", 130)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:  # whoever read the answer has had enough; nothing more can be said to them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except Exception as error:  # a traceback is no answer to an operator
        usage = getattr(error, "format_message", None)  # typer's usage errors
        if usage is None and os.environ.get("COTERIE_TRACEBACK"):
            raise
        return _complain(usage() if usage is not None else f"{type(error).__name__}: {error}", getattr(error, "exit_code", UNUSABLE))
    return code if isinstance(code, int) else 0


def _complain(text: str, code: int) -> int:
    print("clusterctl: " + " ".join(text.split()), file=sys.stderr)  # noqa: T201 - the command's own output
    return code


if __name__ == "__main__":
    main()
