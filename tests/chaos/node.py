"""A node of the campaign: `tests.product.worker` with clients inside."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.chaos import registers
from tests.chaos.clients import Client, Flood, History, Publisher, Retrier, left_open
from tests.chaos.registers import RegisterClient, Registers
from tests.product.worker import Worker, main


class ChaosWorker(Worker):
    handler = Registers
    clients: tuple[Client, ...] = ()

    def do_clients_begin(self, path: str, pause: float) -> Any:
        """Two that append, one that appends and retries, and two at the registers, one with a session. -> how many appends of an earlier life are taken up."""
        history, node = History(path), self.config.node_id
        self.stream = Path(f"{path}.{time.monotonic_ns()}.registers").open("x")  # noqa: SIM115 - closed when these clients have ended
        commands = registers.History(stream=self.stream)
        left = left_open(path)
        self.clients = (
            *(Publisher(self.cluster, history, node, number, pause) for number in range(2)),
            Retrier(self.cluster, history, node, 0, pause, left),
            *(RegisterClient(self.cluster, commands, node, number, pause, session=number == 1) for number in range(2)),
        )
        for client in self.clients:
            client.start()
        return len(left)

    def do_clients_end(self) -> Any:
        """Every client ends what it is about. -> what went wrong with them."""
        for client in self.clients:
            client.stopping.set()
        for client in self.clients:
            client.join(60)
        if self.clients and not any(client.is_alive() for client in self.clients):
            self.stream.close()
        hang = [f"{client.name} has had no answer for a minute" for client in self.clients if client.is_alive()]
        return hang + [surprise for client in self.clients for surprise in client.surprises]

    def do_registers(self) -> Any:
        return self.recorder.digest()

    def do_flood_begin(self, in_flight: int, size: int) -> Any:
        self.floods = Flood(self.cluster, in_flight, size)
        self.floods.start()
        return True

    def do_flood(self) -> Any:
        return {"acked": self.floods.acked, "failed": dict(self.floods.failed)}

    def do_flood_end(self) -> Any:
        self.floods.stopping.set()
        self.floods.join()
        return self.do_flood()


if __name__ == "__main__":
    main(ChaosWorker)
