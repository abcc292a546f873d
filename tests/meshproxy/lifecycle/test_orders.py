"""Orders and answers, as they travel."""

from typing import Any

import pytest

from meshproxy.contract import wire
from meshproxy.contract.resources import ClusterSpec, Snapshot
from meshproxy.contract.wire import ContractError
from meshproxy.lifecycle.orders import (
    Answer,
    Believe,
    Commit,
    Counted,
    Described,
    Done,
    Failed,
    Hand,
    Order,
    Prepare,
    Recall,
    Recalled,
)
from meshproxy.telemetry.counts import Counts


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Order, Hand(places=(("127.0.0.1", 80), ("::1", 81)))),
        (Order, Prepare(snapshot=Snapshot(version="v", clusters=(ClusterSpec(name="a"),)))),
        (Order, Believe(certificate="/a", key=None, roots="r")),
        (Order, Commit()),
        (Answer, Done()),
        (Answer, Failed(path="listener/a port", reason="taken")),
        (Answer, Counted(counts=Counts(connections=[("a", "b", 1, 0)]))),
        (Answer, Described(clusters=[{"name": "a"}])),
        (Order, Recall(number="12ab")),
        (Answer, Recalled(denials=[{"id": "12ab", "at": 1.5}])),
    ],
)
def test_there_and_back(kind: Any, message: Any) -> None:
    """Nothing changes on the way."""
    assert wire.decode(wire.encode(message), kind) == message


def test_orders_are_not_answers() -> None:
    """One taken for the other is an error."""
    with pytest.raises(ContractError):
        wire.decode(wire.encode(Commit()), Answer)  # type: ignore[arg-type]
