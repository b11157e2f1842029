"""A node's TLS: contexts for servers and clients, made of files that are read again when they change.

`Tls` holds one `TlsState` at a time and swaps it as a whole. Whoever begins a handshake takes the present state, so connections that stand are
not touched by a change, and the next ones use the new certificate, key and authorities. A thread looks at the files once in `EVERY` seconds. (Looking at
each handshake lost: it reads a disk, which may hang, in the event loop and in gRPC's threads; and nobody would learn of a bad file before it is needed.)

A change that cannot be used (half written, a key that does not fit yet) leaves the state as it is: it is counted, logged, told in `warnings`, and tried
again, at once when the files change and every `AGAIN` seconds. So certificate and key may be replaced one after the other.

With a CA, servers demand certificates of their clients and verify them by it (mutual TLS), and servers are verified by it alone; without, clients verify by the
system's authorities. TLS 1.2 is the least. One name for all: `server_name` stands in for the address dialled, so that one certificate may serve a
cluster whose nodes have addresses that no certificate knows.
"""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Callable
from typing import Final

import attrs

from coterie.transport.errors import TlsError, TlsFileError
from coterie.transport.limits import LOG, Complaints, Counters
from coterie.transport.tls_files import Role, TlsFiles, TlsSettings, read_files, signature

__all__ = ["HANDSHAKE_TIMEOUT", "Tls", "TlsSettings", "TlsState", "explain"]

HANDSHAKE_TIMEOUT: Final = 5.0
EVERY: Final = 1.0
AGAIN: Final = 10.0
COMPLAIN_EVERY: Final = 60.0
JOIN_TIMEOUT: Final = 2.0
# A certificate is worth a warning in its last two weeks, or its last fifth when it lives for less than ten.
WARN_BEFORE: Final = datetime.timedelta(days=14)
WARN_SHARE: Final = 0.2


@attrs.define(frozen=True, eq=False)
class TlsState:
    """What is in force: the files' contents and the contexts made of them. number: grows with each change."""

    number: int
    files: TlsFiles
    server: ssl.SSLContext | None
    client: ssl.SSLContext
    client_of_grpc: ssl.SSLContext | None = None  # where gRPC's core is not the client


class Tls:
    """See the module's text. Raises TlsFileError when the files cannot be used at the start.

    role: a "client" has no server and may do without a certificate of its own. watch: look at the files until `close`.
    """

    def __init__(
        self,
        settings: TlsSettings,
        name: str = "",
        role: Role = "node",
        watch: bool = True,
        every: float = EVERY,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self.settings = settings
        self.counters = Counters()
        self._name, self._role, self._every, self._clock = name, role, every, clock
        self._complain = Complaints(f"{name} tls", self.counters, COMPLAIN_EVERY)
        self._problem = ""
        self._said: tuple[str, ...] = ()
        self._seen = signature(settings)
        self.state = self._read(1)
        if settings.skip_verify and role == "node":
            LOG.warning(
                "%s tls: no server's certificate is verified (tls_skip_verify): whoever is in between can read and change everything", name
            )
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if watch and settings.paths:
            self._thread = threading.Thread(target=self._watch, name=f"{name}/tls" if name else "tls", daemon=True)
            self._thread.start()

    @property
    def mutual(self) -> bool:
        """Whether servers demand a certificate of their clients."""
        return bool(self.settings.ca)

    def server(self) -> ssl.SSLContext:
        """The context for a connection that came in."""
        context = self.state.server
        assert context is not None
        return context

    def client(self) -> ssl.SSLContext:
        """The context for a connection that goes out."""
        return self.state.client

    def client_of_grpc(self) -> ssl.SSLContext:
        """The same with HTTP/2 announced, as gRPC's servers demand; the other must not say so, or an HTTP server would believe it. For `tls_tunnel` and
        `grpc_json_client`."""
        context = self.state.client_of_grpc
        assert context is not None
        return context

    def name_of(self, host: str) -> str:
        """What the certificate of the server at `host` must name."""
        return self.settings.server_name or host or "127.0.0.1"

    def expiries(self) -> dict[str, float]:
        """When certificates end, in seconds since the epoch: `node` is this side's own, `ca` the last of the authorities."""
        files = self.state.files
        ends = {"node": files.not_after, "ca": files.ca_not_after}
        return {which: end.timestamp() for which, end in ends.items() if end is not None}

    def warnings(self) -> tuple[str, ...]:
        """What an operator should know now; empty when all is well."""
        files, said = self.state.files, []
        if self._problem:
            said.append(f"TLS of {self._name}: the files on disk cannot be used, and what was read before stays in force: {self._problem}")
        if not files.vouched:
            said.append(
                f"TLS of {self._name}: the certificate in {self.settings.cert} is issued by no authority in {self.settings.ca}: "
                "nodes that have the same authorities refuse it"
            )
        for what, path, begin, end in (
            ("certificate", self.settings.cert, files.not_before, files.not_after),
            ("CA", self.settings.ca, files.ca_not_before, files.ca_not_after),
        ):
            if begin is None or end is None:
                continue
            left = end - self._clock()
            if left < datetime.timedelta():
                said.append(
                    f"TLS of {self._name}: the {what} in {path} expired at {end:%Y-%m-%d %H:%M} UTC: new connections are refused; renew it"
                )
            elif left < min(WARN_BEFORE, (end - begin) * WARN_SHARE):
                said.append(
                    f"TLS of {self._name}: the {what} in {path} expires at {end:%Y-%m-%d %H:%M} UTC: renew it; it is read again without a restart"
                )
        return tuple(said)

    def close(self) -> None:
        """Does not wait for a disk that hangs: the thread is then left behind."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(JOIN_TIMEOUT)

    def look(self, again: bool = False) -> bool:
        """Read the files if they changed, or `again`: whether another state is in force now. Called by the watching thread."""
        seen = signature(self.settings)
        if seen == self._seen and not again:
            return False
        self._seen = seen
        before = self.state
        try:
            state = self._read(before.number + 1)
        except Exception as error:  # noqa: BLE001 - also what the parsers raise on a file that nobody has thought of: the watch must not end with it
            self._problem = str(error) if isinstance(error, TlsFileError) else f"{type(error).__name__}: {error}"
            self._complain("reloads failed", "its files", self._problem)
            return False
        self._problem = ""
        if state.files == before.files:
            return False
        self.state = state
        self.counters.add("reloads")
        LOG.info("%s tls: certificates were read again; in force is %s", self._name, state.files.subject or "no certificate of its own")
        return True

    def _read(self, number: int) -> TlsState:
        settings, role = self.settings, self._role
        files = read_files(settings, self._clock(), role)
        server = _context(settings, files, True) if role == "node" else None
        of_grpc = _context(settings, files, False)
        of_grpc.set_alpn_protocols(["h2"])
        state = TlsState(number, files, server, _context(settings, files, False), of_grpc)
        # OpenSSL reads certificate and key from their paths: both must still be what was judged.
        if read_files(settings, self._clock(), role) != files:
            raise TlsFileError("cert", settings.cert, "is being replaced at this moment: it is read again")
        return state

    def _watch(self) -> None:
        waited = 0.0
        while not self._closing.wait(self._every):
            waited += self._every
            again = bool(self._problem) and waited >= AGAIN
            if again:
                waited = 0.0
            self.look(again)
            said = self.warnings()
            for text in said:
                if text not in self._said:
                    LOG.warning("%s: %s", self._name, text)
            self._said = said


def _context(settings: TlsSettings, files: TlsFiles, for_server: bool) -> ssl.SSLContext:
    """Raises TlsFileError for what OpenSSL does not take, such as a key that is too weak."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if for_server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        if settings.cert:
            context.load_cert_chain(settings.cert, settings.key, password=lambda: b"")
    except (OSError, ValueError) as error:
        raise TlsFileError("cert", settings.cert, f"is not taken by OpenSSL: {error}") from None
    try:
        if files.ca:
            context.load_verify_locations(cadata=files.ca.decode("ascii", "replace"))
        elif not for_server:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    except (OSError, ValueError) as error:
        raise TlsFileError("ca", settings.ca, f"is not taken by OpenSSL: {error}") from None
    if for_server:
        context.num_tickets = 0  # connections stay; a session kept would only outlive the certificates that began it
        context.verify_mode = ssl.CERT_REQUIRED if files.ca else ssl.CERT_NONE
    elif settings.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


# What OpenSSL says in its own words -> (reason, what it means).
_PLAIN: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})
_ALERTS: Final = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it demands a client certificate: give tls_cert and tls_key",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it demands a client certificate, or no cipher is common",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the CA of our certificate: give one issued by a CA in its tls_ca",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired: renew it",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take our certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not take our certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "our certificate is not for clients: issue one with clientAuth",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no TLS version that we do",
}


def explain(error: BaseException) -> TlsError:
    """A failed handshake, or a connection that broke, as a TlsError: by whose fault, and what to do."""
    if isinstance(error, TlsError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = {
            62: "give the node a certificate with that name, or set tls_server_name to a name in it",
            64: "give the node a certificate with that IP address, or set tls_server_name to a name in it",
            10: "the other side must renew it",
        }.get(error.verify_code, "is it issued by a CA in our tls_ca, and with its whole chain?")
        return TlsError("certificates refused", f"its certificate is refused: {error.verify_message.rstrip('. ')}: {remedy}")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError):
        return TlsError("handshakes broken off", "the other side hung up: is it TLS there, and does it take our certificate?")
    if isinstance(error, TimeoutError):
        return TlsError("handshakes too slow", f"no handshake within {HANDSHAKE_TIMEOUT} s: does the other side speak TLS?")
    if isinstance(error, ssl.SSLError):
        word = error.reason or ""
        if word in _PLAIN:
            return TlsError("plain connections refused", "the other side does not speak TLS: turn tls_enable on there, or off here")
        if word == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return TlsError("certificates refused", "it has shown no client certificate, and tls_ca demands one")
        if "ALERT" in word:
            return TlsError("refused by the other side", f"{_ALERTS.get(word, 'it has ended the connection')} ({word.lower()})")
        return TlsError("handshakes failed", f"{word.lower().replace('_', ' ') or error}")
    return TlsError("handshakes failed", str(error) or type(error).__name__)
