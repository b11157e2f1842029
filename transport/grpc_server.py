"""A gRPC server of methods that take and give bytes.

Methods are generic: name, kind and a function; the messages' codec is the function's own affair, since the same method may be spoken to in protobuf and in
JSON. Three pools of threads keep the kinds of work from starving one another:
- *control*: short questions of operators and health checks; they are answered even while every other thread waits;
- *work*: unary calls that wait for the cluster or for a handler;
- *streams*: one thread for each open stream. Streams are bounded in number, and one above is refused at once: it never waits in a queue behind streams that stay
  open for ever, which is what becomes of N streams on N workers.

Each pool has threads beyond those for calls whose request has not come yet (`grpc_reception`, which also has the places for streams). Unary methods are streams of
one request to gRPC's core, the same on the wire: it is how a method gets hold of a call before its request is there.

A thread that waits inside a call must notice that the call is over, or it would hinder the stop: `Call.wait` returns then, `Call.on_end` tells, and
the iterator of requests ends. `stop` cancels what is still open after `grace` seconds.

Keep-alive is paired with the client's (`grpc_client`): the clients ping every 10 s, also without calls, and this server permits it; with the defaults it would
close such a connection with `too_many_pings`.

With TLS, each handshake gets the certificate, key and authorities of that moment. gRPC's core refuses bad handshakes by itself and tells nobody, so they are
not counted here; who was refused sees the reason.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, NamedTuple, NoReturn

import grpc

from coterie.transport import crowd
from coterie.transport.addresses import Address, parse_address
from coterie.transport.errors import BindError
from coterie.transport.grpc_reception import HALF_CALLS, Reception, StreamPlaces
from coterie.transport.limits import LOG, Complaints, Counters
from coterie.transport.listener import bind_socket
from coterie.transport.tls import HANDSHAKE_TIMEOUT, Tls, TlsState

__all__ = ["MAX_MESSAGE", "Call", "GrpcServer", "Method", "Refused"]

MAX_MESSAGE: Final = 32 << 20
CONTROL_THREADS: Final = 8
WORK_THREADS: Final = 32
SPARE_STREAM_THREADS: Final = 8  # they say no to the streams that have no place
MAX_CALLS: Final = 2048
MAX_METADATA: Final = 16 << 10  # bytes of a call's headers
MAX_STREAMS_A_CONNECTION: Final = 1024
MAX_CONNECTIONS: Final = 1024
OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # else a second server on the same port would start, and take half of the calls
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA),
    ("grpc.max_concurrent_streams", MAX_STREAMS_A_CONNECTION),
    ("grpc.max_connection_idle_ms", 300_000),  # without a call; who has one open is not idle
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    (
        "grpc.server_handshake_timeout_ms",
        int(2 * HANDSHAKE_TIMEOUT * 1000),
    ),  # TLS and the first words of HTTP/2; gRPC's own default is two minutes
)

Kind = Literal["control", "work", "client_stream", "server_stream", "bidi"]


class Method(NamedTuple):
    """kind "control" and "work": (bytes, Call) -> bytes; "client_stream": (Iterator[bytes], Call) -> bytes;
    "server_stream": (bytes, Call) -> Iterator[bytes]; "bidi": (Iterator[bytes], Call) -> Iterator[bytes]."""

    kind: Kind
    serve: Callable[[Any, Call], Any]
    of_members: bool = False  # a stream that the nodes open to one another, for which places are kept


class Refused(Exception):
    """Raised by a method: end the call with this status. code: a name of `grpc.StatusCode`; trailing: metadata that goes with it."""

    def __init__(self, code: str, text: str, trailing: tuple[tuple[str, str | bytes], ...] = ()) -> None:
        super().__init__(text)
        self.code, self.text, self.trailing = code, text, trailing


class Call:
    """One call as its method sees it."""

    __slots__ = ("_context", "metadata", "peer")

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self.peer: str = context.peer()
        self.metadata: dict[str, Any] = {str(key): value for key, value in context.invocation_metadata()}

    def remaining(self) -> float | None:
        """Seconds until the caller stops waiting; None when it never does."""
        return self._context.time_remaining()

    @property
    def over(self) -> bool:
        return not self._context.is_active()

    def on_end(self, callback: Callable[[], Any]) -> None:
        """Call `callback()` when the call is over, for whatever reason; now when it is already."""
        if not self._context.add_callback(callback):
            callback()

    def wait(self, on_done: Callable[[Callable[[], Any]], Any], timeout: float | None) -> None:
        """Block until what `on_done` subscribes to has happened, the call is over, or `timeout` seconds have passed."""
        woken = threading.Event()
        on_done(woken.set)
        self.on_end(woken.set)
        woken.wait(timeout)

    def accept(self) -> None:
        """Send the stream's header now, and not with its first message: the client then knows that it is served."""
        self._context.send_initial_metadata(())

    def add_trailing(self, trailing: tuple[tuple[str, str | bytes], ...]) -> None:
        self._context.set_trailing_metadata(trailing)


class GrpcServer:
    """Serves `services` (service name -> method name -> Method) on `bind` from construction until `stop`. Raises BindError, AddressError."""

    def __init__(
        self,
        bind: str,
        services: Mapping[str, Mapping[str, Method]],
        name: str = "",
        setting: str = "grpc_addr",
        places: StreamPlaces | None = None,
        work_threads: int = WORK_THREADS,
        tls: Tls | None = None,
    ) -> None:
        self.counters = Counters()
        self._tls = tls
        self._name = name
        self._complain = Complaints(f"{name} grpc", self.counters)
        self._places = places or StreamPlaces()
        streams = self._places.guests + self._places.members + SPARE_STREAM_THREADS
        prefix = f"{name}/" if name else ""
        self._control = ThreadPoolExecutor(CONTROL_THREADS + HALF_CALLS, thread_name_prefix=f"{prefix}grpc-control")
        self._work = ThreadPoolExecutor(work_threads + HALF_CALLS, thread_name_prefix=f"{prefix}grpc-work")
        self._streams = ThreadPoolExecutor(streams, thread_name_prefix=f"{prefix}grpc-stream")
        self._receptions = {kind: Reception(self._complain) for kind in ("control", "work", "server_stream")}
        options = (*OPTIONS, ("grpc.max_allowed_incoming_connections", crowd.places(MAX_CONNECTIONS)))
        self._server = grpc.server(self._work, options=options, maximum_concurrent_rpcs=MAX_CALLS)
        for service, methods in services.items():
            handlers = {method: self._handler(spec) for method, spec in methods.items()}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        try:
            self.address = self._bind(parse_address(bind), setting)
        except BaseException:
            self._shut_pools()
            raise
        self._server.start()

    @property
    def port(self) -> int:
        return self.address.port

    def stop(self, grace: float = 0.5, timeout: float = 1.5) -> None:
        """No new calls; what still runs after `grace` seconds is cancelled. Returns after `timeout` seconds at the latest."""
        self._server.stop(grace).wait(timeout)
        self._shut_pools()

    def _shut_pools(self) -> None:
        for pool in (self._control, self._work, self._streams):
            pool.shutdown(wait=False, cancel_futures=True)

    def _bind(self, address: Address, setting: str) -> Address:
        target = str(Address(address.host or "0.0.0.0", address.port))
        if address.port:  # asked first by a socket of our own: gRPC's core says on standard error what it could not bind
            bind_socket(address, socket.SOCK_STREAM, setting).close()
        try:
            port = (
                self._server.add_insecure_port(target)
                if self._tls is None
                else self._server.add_secure_port(target, credentials(self._tls))
            )
        except RuntimeError as error:
            bind_socket(address, socket.SOCK_STREAM, setting).close()  # says what is wrong, as an error of our own
            raise BindError(f"{setting} {str(address)!r} cannot be bound: {error}; bind another address") from error
        if port == 0:
            bind_socket(address, socket.SOCK_STREAM, setting).close()
            raise BindError(f"{setting} {str(address)!r} cannot be bound; bind another address")
        return Address(address.host, port)

    # -- methods --------------------------------------------------------------------------------------------------------------

    def _handler(self, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        match method.kind:
            case "control":
                return grpc.stream_unary_rpc_method_handler(self._on(self._control, self._unary(method)))
            case "work":
                return grpc.stream_unary_rpc_method_handler(self._on(self._work, self._unary(method)))
            case "client_stream":
                return grpc.stream_unary_rpc_method_handler(self._on(self._streams, self._one_stream(method)))
            case "server_stream" | "bidi":
                return grpc.stream_stream_rpc_method_handler(self._on(self._streams, self._answers(method)))

    @staticmethod
    def _on(pool: ThreadPoolExecutor, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        behaviour.experimental_thread_pool = pool  # type: ignore[attr-defined]  # grpcio's own way to give a method a pool, since 1.23
        return behaviour

    def _unary(self, method: Method) -> Callable[[Iterator[bytes], grpc.ServicerContext], Any]:
        reception = self._receptions[method.kind]

        def serve(requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            return self._served(method, reception.request(requests, context), context)

        return serve

    def _served(self, method: Method, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method.serve(request, Call(context))
        except Exception as error:  # noqa: BLE001 - told to the caller, counted and logged
            self._abort(context, error)

    def _one_stream(self, method: Method) -> Callable[[Iterator[bytes], grpc.ServicerContext], Any]:
        def serve(requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            leave = self._take_place(method, context)
            try:
                return self._served(method, _until_over(requests), context)
            finally:
                leave()

        return serve

    def _answers(self, method: Method) -> Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]:
        reception = self._receptions.get(method.kind)

        def serve(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            leave = self._take_place(method, context)
            try:
                request = _until_over(requests) if reception is None else reception.request(requests, context)
                try:
                    yield from method.serve(request, Call(context))
                except Exception as error:  # noqa: BLE001 - as above
                    self._abort(context, error)
            finally:
                leave()

        return serve

    def _take_place(self, method: Method, context: grpc.ServicerContext) -> Callable[[], None]:
        leave, full = self._places.take(context.peer(), method.of_members)
        if leave is None:
            self._complain("streams refused", context.peer(), full)
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{full}; try again later")
        return leave

    def _abort(self, context: grpc.ServicerContext, error: Exception) -> NoReturn:
        if isinstance(error, Refused):
            context.set_trailing_metadata(error.trailing)
            context.abort(grpc.StatusCode[error.code], error.text)
        if context.is_active():
            self.counters.add("methods failed")
            LOG.error("%s: a gRPC method failed", self._name, exc_info=error)
        context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def credentials(tls: Tls) -> grpc.ServerCredentials:
    """A server's credentials that follow `tls`: the core asks for them at each handshake."""
    given = [tls.state]

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """None: as before."""
        state = tls.state
        if state is given[0]:
            return None
        given[0] = state
        return _certificates(state)

    fetcher: Any = fetch  # its stub does not know the None
    return grpc.dynamic_ssl_server_credentials(_certificates(given[0]), fetcher, require_client_authentication=tls.mutual)


def _certificates(state: TlsState) -> grpc.ServerCertificateConfiguration:
    files = state.files
    return grpc.ssl_server_certificate_configuration([(files.key, files.chain)], files.ca or None)


def _until_over(requests: Iterable[bytes]) -> Iterator[bytes]:
    """The requests of a stream; ends, as by its client's last word, when the call is cancelled or the connection is lost."""
    iterator = iter(requests)
    while True:
        try:
            request = next(iterator)
        except (StopIteration, grpc.RpcError):
            return
        yield request
