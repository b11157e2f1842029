"""A DNS server of the tests' own, on UDP and TCP of one free port: its answers are a table that a test may change at any time."""

from __future__ import annotations

import collections
import contextlib
import socketserver
import struct
import threading
from collections.abc import Iterator
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class DnsServer:
    """records: (name, type) -> (ttl, values); an empty list of values is a name without such records. A name in no record does not exist. `fail` maps a name to
    "SERVFAIL", "silence" or "truncated" (over UDP). `asked` counts questions by (name, type)."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self.fail: dict[str, str] = {}
        self.asked: collections.Counter[tuple[str, str]] = collections.Counter()
        self.over_tcp = 0
        self.absent_ttl = 0

    def set(self, name: str, kind: str, *values: str, ttl: int = 0) -> None:
        self.records[name, kind] = ttl, list(values)

    def answer(self, wire: bytes, tcp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        self.over_tcp += tcp
        reply = dns.message.make_response(query)
        trouble = self.fail.get(name)
        if trouble == "silence":
            return None
        if trouble == "SERVFAIL":
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif trouble == "truncated" and not tcp:
            reply.flags |= dns.flags.TC
        elif (name, kind) in self.records:
            ttl, values = self.records[name, kind]
            if values:
                reply.answer.append(dns.rrset.from_text_list(question.name, ttl, "IN", kind, values))
        else:
            if not any(known == name for known, _ in self.records):
                reply.set_rcode(dns.rcode.NXDOMAIN)
            soa = f"ns.test. root.test. 1 1 1 1 {self.absent_ttl}"
            reply.authority.append(dns.rrset.from_text("test.", self.absent_ttl, "IN", "SOA", soa))
        return reply.to_wire()


class _Udp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        wire, sock = self.request
        answer = self.server.answer(wire, False)  # type: ignore[attr-defined]
        if answer is not None:
            sock.sendto(answer, self.client_address)


class _Tcp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        (size,) = struct.unpack("!H", self.rfile.read(2))
        answer = self.server.answer(self.rfile.read(size), True)  # type: ignore[attr-defined]
        if answer is not None:
            self.wfile.write(struct.pack("!H", len(answer)) + answer)


@contextlib.contextmanager
def dns_server() -> Iterator[tuple[DnsServer, str]]:
    """-> the server, and its address host:port."""
    made = DnsServer()
    servers: list[Any] = []
    while not servers:
        with contextlib.ExitStack() as opened:
            udp = opened.enter_context(socketserver.UDPServer(("127.0.0.1", 0), _Udp))
            with contextlib.suppress(OSError):  # that port may be taken for TCP
                tcp = opened.enter_context(socketserver.TCPServer(udp.server_address, _Tcp))
                servers = [udp, tcp]
                opened.pop_all()
    threads = []
    for server in servers:
        server.answer = made.answer
        threads.append(threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True))
        threads[-1].start()
    try:
        yield made, "{}:{}".format(*servers[0].server_address)
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join(10)


__all__ = ["DnsServer", "dns_server"]
