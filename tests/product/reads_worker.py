"""A node whose state is one register, changed by commands and read on whichever node is asked; see `worker`."""

from __future__ import annotations

import time
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

    def do_read_after(self, seconds: float, consistency: Any) -> Any:
        """As `read`, asked when this time has passed: also while the process stands still."""
        time.sleep(seconds)
        return self.do_read("get", "", 20, consistency)


if __name__ == "__main__":
    main(ReadsWorker)
