"""A FastAPI application that is a member of a cluster: the node lives as long as the application, and no request blocks the event loop.

    COTERIE_ID=n1 COTERIE_BOOTSTRAP=1 python -m uvicorn examples.fastapi_app:app --port 8000
    curl -sS -X POST http://127.0.0.1:8000/orders/42
    curl -sS http://127.0.0.1:8000/orders

The node is configured by the variables that `clusterctl run` knows, too. One process is one node: start more of them, each with an id and ports of its own and
`COTERIE_JOIN`, and not with uvicorn's `--workers`, whose processes would all be the same node.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from coterie import AsyncCluster, Config, CoterieError


class Orders:
    """The handler: it runs in a thread of its own, and keeps what every node is given in the same order."""

    def __init__(self) -> None:
        self.known: list[str] = []

    def handle_sync(self, topic: str, data: bytes) -> None:
        if topic == "orders.created":
            self.known.append(data.decode())

    def handle_write(self, op: str, request: bytes) -> bytes:
        """On the leader only, one at a time: the place for what must not happen twice."""
        return f"{op} {request.decode()}".encode()


def config(orders: Orders) -> Config:
    env = os.environ
    return Config(
        node_id=env.get("COTERIE_ID", "n1"),
        raft_addr=env.get("COTERIE_RAFT_ADDR", ":9520"),
        mem_bind=env.get("COTERIE_MEM_BIND", ":7946"),
        mgmt_addr=env.get("COTERIE_MGMT_ADDR", ":17946"),
        seeds_csv=env.get("COTERIE_JOIN", ""),
        bootstrap=env.get("COTERIE_BOOTSTRAP", "") not in ("", "0"),
        data_dir=env.get("COTERIE_DATA", ""),
        app_handlers=orders,
    )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The node starts before the first request, and stops after the last."""
    orders = Orders()
    async with AsyncCluster(config(orders)) as cluster:
        app.state.cluster, app.state.orders = cluster, orders
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(CoterieError)
async def refused(request: Request, error: CoterieError) -> JSONResponse:
    return JSONResponse({"error": str(error), "kind": type(error).__name__}, status_code=503)


@app.post("/orders/{order}")
async def create(order: str, request: Request) -> dict[str, Any]:
    """Answered when the order is on a quorum's disks."""
    published = await request.app.state.cluster.publish("orders.created", order.encode(), message_id=order)
    return {"order": order, "seq": published.seq}


@app.get("/orders")
async def orders(request: Request) -> list[str]:
    """What this node has been given so far."""
    return list(request.app.state.orders.known)


@app.post("/reserve/{order}")
async def reserve(order: str, request: Request) -> dict[str, str]:
    """Runs on the leader, whichever node was asked."""
    answer: bytes = await request.app.state.cluster.write("reserve", order.encode())
    return {"answer": answer.decode()}


@app.get("/status")
async def status(request: Request) -> dict[str, Any]:
    seen = await request.app.state.cluster.status()
    return {"leader": seen.leader_id, "term": seen.term, "members": [member.id for member in seen.members], "healthy": seen.healthy}
