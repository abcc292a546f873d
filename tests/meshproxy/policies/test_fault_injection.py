from random import Random
from typing import Any

import pytest

from meshproxy.contract.matching import IdentityMatchSpec, MatchSpec, ValueMatchSpec
from meshproxy.contract.policies import FaultSpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import RequestHead, field
from meshproxy.policies.fault_injection import FaultInjection, Injected

ALICE = "spiffe://test.mesh/ns/default/sa/alice"
PLAIN = RequestHead(b"GET", b"catalog", b"/", [])


def fault(**more: Any) -> FaultSpec:
    settings: dict[str, Any] = {"name": "trouble", **more}
    return FaultSpec(**settings)


def drawn(*specs: FaultSpec, call: bool = False, chance: float = 0.5) -> Injected | None:
    return FaultInjection(specs).draw(PLAIN, None, lambda: chance, call=call)


def test_a_delay() -> None:
    """Of so many milliseconds, where chance wants it."""
    spec = fault(delay=250, delay_percent=60)
    injected = drawn(spec)
    assert injected is not None
    assert (injected.fault, injected.delay, injected.abort) == ("trouble", 0.25, None)
    assert drawn(spec, chance=0.6) is None


def test_an_abort_has_the_status_that_was_asked_for() -> None:
    """Everything else about it is that of the refusal `fault-injected`."""
    injected = drawn(fault(abort_status=418, abort_percent=100))
    assert injected is not None
    assert injected.abort is not None
    assert (injected.abort.code, injected.abort.status, injected.abort.flag) == (
        "fault-injected", 418, "FI",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("plain", "call", "status"),
    [(503, None, 14), (401, None, 16), (418, None, 2), (503, 8, 8), (None, 5, 5)],
)
def test_a_call_is_aborted_with_a_status_of_grpc(
    plain: int | None, call: int | None, status: int
) -> None:
    """The one that was asked for, or what gRPC makes of that of HTTP."""
    injected = drawn(
        fault(abort_status=plain, abort_grpc_status=call, abort_percent=100), call=True
    )
    assert injected is not None
    assert injected.abort is not None
    assert injected.abort.grpc_status == status


def test_a_status_of_grpc_alone_aborts_calls_alone() -> None:
    """Other requests would not understand it."""
    assert drawn(fault(abort_grpc_status=5, abort_percent=100)) is None


def test_delay_and_abort_are_drawn_apart() -> None:
    """With shares of 30 % and 50 %, there are 15 % with both: within what chance allows."""
    faults = FaultInjection([fault(delay=10, delay_percent=30, abort_status=500, abort_percent=50)])
    random, both, delayed, aborted = Random(7).random, 0, 0, 0
    for _ in range(10_000):
        injected = faults.draw(PLAIN, None, random, call=False)
        if injected is not None:
            delayed += injected.delay > 0
            aborted += injected.abort is not None
            both += injected.delay > 0 and injected.abort is not None
    assert 2_800 < delayed < 3_200
    assert 4_750 < aborted < 5_250
    assert 1_350 < both < 1_650


def test_the_first_that_means_a_request_decides() -> None:
    """Also when chance then spares the request."""
    first = fault(name="first", abort_status=500, abort_percent=10)
    second = fault(name="second", abort_status=500, abort_percent=100)
    assert drawn(first, second) is None
    assert drawn(second, first) is not None


def test_match_and_source_choose() -> None:
    """Both must hold."""
    faults = FaultInjection(
        [
            fault(
                match=MatchSpec(headers=(ValueMatchSpec(name="x-test", value="1"),)),
                source=IdentityMatchSpec(principals=(ALICE,)),
                abort_status=500,
                abort_percent=100,
            )
        ]
    )
    marked = RequestHead(b"GET", b"catalog", b"/", [field(b"x-test", b"1")])
    assert faults.draw(marked, ALICE, lambda: 0.0, call=False) is not None
    assert faults.draw(marked, None, lambda: 0.0, call=False) is None
    assert faults.draw(PLAIN, ALICE, lambda: 0.0, call=False) is None


@pytest.mark.parametrize(
    "more",
    [{}, {"delay": 100}, {"delay_percent": 100}, {"abort_status": 500}, {"abort_percent": 100}],
)
def test_a_fault_that_does_nothing_is_refused(more: dict[str, Any]) -> None:
    """Whoever wrote it meant something."""
    with pytest.raises(ContractError, match="neither delays nor aborts") as caught:
        FaultInjection([fault(**more)])
    assert caught.value.path == "faults[0]"
