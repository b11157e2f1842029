"""A node of the campaign: `tests.product.worker` with clients inside."""

from __future__ import annotations

from typing import Any

from tests.chaos.clients import Client, History, Publisher, Retrier, left_open
from tests.product.worker import Worker, main


class ChaosWorker(Worker):
    clients: tuple[Client, ...] = ()

    def do_clients_begin(self, path: str, pause: float) -> Any:
        """Two that append, and one that retries."""
        history, node = History(path), self.config.node_id
        left = left_open(path)
        self.clients = (
            *(Publisher(self.cluster, history, node, number, pause) for number in range(2)),
            Retrier(self.cluster, history, node, 0, pause, left),
        )
        for client in self.clients:
            client.start()
        return len(left)

    def do_clients_end(self) -> Any:
        """Every client ends what it is about. -> how many have not within a minute."""
        for client in self.clients:
            client.stopping.set()
        for client in self.clients:
            client.join(60)
        return sum(client.is_alive() for client in self.clients)


if __name__ == "__main__":
    main(ChaosWorker)
