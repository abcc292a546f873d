"""What came, what was executed, and whose turn it is to be struck."""

import copy
import random
from collections import Counter
from typing import Literal, Self

from .fault import NONE, Fault

Place = Literal["first", "twin", "ill"]
"""One of the server's endpoints: each has a port, and all share what is counted."""


class Ledger:
    """
    Attributes:
        place: Of whose requests this is told.
        well: What this place says when it is asked for its health.
        received: By id, how often its head has arrived.
        executed: By id, how often its work was done.
        elsewhere: By id, how often of these it was done at another place than the first.
        abandoned: By id, how often the client lost patience with a stall.
        connections: How many were accepted.
    """

    def __init__(self) -> None:
        self.place: Place = "first"
        self.well = True
        self.received: Counter[str] = Counter()
        self.executed: Counter[str] = Counter()
        self.elsewhere: Counter[str] = Counter()
        self.abandoned: Counter[str] = Counter()
        self.connections = 0
        self._times: Counter[str] = Counter()

    def at(self, place: Place) -> Self:
        """Return the same for another place."""
        other = copy.copy(self)
        other.place, other.well = place, place != "ill"
        return other

    def execute(self, id_: str) -> None:
        """The work of a request is done."""
        self.executed[id_] += 1
        if self.place != "first":
            self.elsewhere[id_] += 1

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
        if fault.twin and self.place != "twin":
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
            "elsewhere": dict(self.elsewhere),
            "abandoned": dict(self.abandoned),
            "connections": self.connections,
        }

    def forget(self) -> None:
        """Count from zero."""
        self.received.clear()
        self.executed.clear()
        self.elsewhere.clear()
        self.abandoned.clear()
        self._times.clear()
        self.connections = 0
