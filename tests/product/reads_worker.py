"""A node whose state is one register, changed by commands and read on whichever node is asked; see `worker`."""

from __future__ import annotations

from typing import Any

from coterie import Apply
from tests.product.worker import Recorder, Worker, main


class Register(Recorder):
    value = b""

    def handle_apply(self, index: int, op: str, data: bytes) -> bytes:
        self.value = data
        return b"%d" % index

    def handle_read(self, op: str, request: bytes) -> bytes:
        return self.value


class ReadsWorker(Worker):
    handler = Register

    def do_apply(self, data: str, timeout: float = 20) -> Any:
        return self.cluster.ask(Apply("set", data.encode(), timeout=timeout)).index


if __name__ == "__main__":
    main(ReadsWorker)
