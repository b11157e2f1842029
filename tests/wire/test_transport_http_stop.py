"""A server that stops while a request is at work."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from coterie.transport.http_server import HttpServer


def test_a_request_that_is_cut_off_by_the_stop_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    at_work = threading.Event()

    async def app(scope: object, receive: object, send: object) -> None:
        at_work.set()
        await asyncio.Event().wait()

    server = HttpServer("127.0.0.1:0", app)
    with socket.create_connection(("127.0.0.1", server.address.port), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert at_work.wait(10)
        server.close()
    assert "Traceback" not in caplog.text
