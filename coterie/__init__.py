"""coterie: turn a Python service into a cluster.

    from coterie import ClusterSupervisor, Config, HandlerActor, Publish, RegisterHandler

    class Orders(HandlerActor):
        def handle_sync(self, topic: str, data: bytes) -> None:
            print(topic, data)

    cluster = ClusterSupervisor.start(Config(node_id="n1", bootstrap=True, data_dir="/var/lib/orders"))
    cluster.ask(RegisterHandler(Orders.start()))
    cluster.ask(Publish("orders.created", b"42"))
    cluster.stop()

`Cluster` wraps the same messages in plain methods, `AsyncCluster` in coroutines. All errors are `CoterieError`s.
Names are imported when they are first used, so that `import coterie` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Where each public name lives; type checkers read the same from __init__.pyi.
_HOMES = {
    "coterie.actors.config": "Config",
    "coterie.actors.errors": (
        "AlreadyApplied AlreadyMember BindFailed ConfigError CoterieError DeadlineExceeded HandlerFailed Indeterminate InvalidRequest "
        "NoQuorum NotDelivered NotLeader Overloaded PayloadTooLarge SessionExpired StorageError UnknownMember Unreachable VersionMismatch"
    ),
    "coterie.actors.event_stream": "EventStream",
    "coterie.actors.handler": "HandlerActor Record",
    "coterie.actors.messages": (
        "Applied Apply ClusterStatus DeadLetter DeadLettered DeadLetters ElectionEnd ElectionStart Event EventsMissed Failing Join Joined LeaderChanged LeaderInfo "
        "Leave Left LetterPage MemberEvent MemberFailed MemberJoin MemberLeave MemberStatus Publish PublishMany Published PublishedMany "
        "Read RegisterHandler ReplicationGap Requeue RosterMember Status Subscribe "
        "TopicStatus TransferLeadership Write"
    ),
    "coterie.actors.supervisor": "ClusterSupervisor",
    "coterie.aio": "AsyncCluster",
    "coterie.cluster": "Cluster",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}
__all__ = list(_HOME_OF)


def __getattr__(name: str) -> Any:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'coterie' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
