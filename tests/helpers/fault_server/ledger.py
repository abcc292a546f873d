"""What came, what was executed, and whose turn it is to be struck."""

import random
from collections import Counter

from .fault import NONE, Fault


class Ledger:
    """
    Attributes:
        received: By id, how often its head has arrived.
        executed: By id, how often its work was done.
        abandoned: By id, how often the client lost patience with a stall.
        connections: How many were accepted.
    """

    def __init__(self) -> None:
        self.received: Counter[str] = Counter()
        self.executed: Counter[str] = Counter()
        self.abandoned: Counter[str] = Counter()
        self.connections = 0
        self._times: Counter[str] = Counter()

    def strikes(self, fault: Fault, id_: str, *, served: int) -> bool:
        """
        Say whether this is one of the times that the fault is about.

        Args:
            fault: What was asked for.
            id_: Of the request.
            served: Requests before it on its connection.
        """
        if fault == NONE or (fault.reused and not served):
            return False
        key = fault.key or id_
        self._times[key] += 1
        time = self._times[key]
        if fault.first and time > fault.first:
            return False
        if fault.every and time % fault.every:
            return False
        return (
            fault.share >= 1 or random.Random(f"{fault.seed}/{key}/{time}").random() < fault.share
        )

    def counts(self) -> "dict[str, dict[str, int] | int]":
        """Return all that is counted."""
        return {
            "received": dict(self.received),
            "executed": dict(self.executed),
            "abandoned": dict(self.abandoned),
            "connections": self.connections,
        }

    def forget(self) -> None:
        """Count from zero."""
        self.received.clear()
        self.executed.clear()
        self.abandoned.clear()
        self._times.clear()
        self.connections = 0
