"""Was the demo a success?"""

import msgspec

from control_plane.cli.traffic import HANDSHAKE_FAILURES, REFUSALS, REQUESTS, Series
from control_plane.cli.verdict import expected_hops, problems
from control_plane.resources.model import HTTPRoute

HOPS = {("default/a", "default/b")}


def requests(source: str = "spiffe://td/ns/default/sa/a", code: str = "200") -> Series:
    labels = {"direction": "inbound", "source": source, "destination": "default/b", "code": code}
    return REQUESTS, frozenset(labels.items())


def metric(name: str) -> Series:
    return name, frozenset({("code", "x")})


def test_success_has_no_reasons() -> None:
    """All answered, all proved, every hop travelled."""
    assert problems(10, {}, {requests(): 10.0}, HOPS) == []


def test_failed_requests_are_counted_and_quoted() -> None:
    """The most frequent failure is named."""
    found = problems(7, {"503 x": 2, "timeout": 1}, {requests(): 10.0}, HOPS)

    assert found == ["3 of 10 requests failed, 2 of them: 503 x"]


def test_plaintext_is_a_failure() -> None:
    """Even where every request was answered."""
    found = problems(1, {}, {requests(): 1.0, requests("plaintext"): 4.0}, HOPS)

    assert found == ["4 requests reached default/b without mTLS"]


def test_what_the_sidecars_saw_counts_too() -> None:
    """Answers that are not 2xx, refusals, handshakes that failed."""
    counters = {
        requests(): 1.0,
        requests(code="500"): 2.0,
        metric(REFUSALS): 3.0,
        metric(HANDSHAKE_FAILURES): 4.0,
    }

    assert problems(1, {}, counters, HOPS) == [
        "default/a → default/b: answered 2 with 500",
        "4 TLS handshakes failed",
        "sidecars refused 3 times (mesh_refusals_total says why)",
    ]


def test_a_demo_without_traffic_is_none() -> None:
    """Each hop must have been travelled."""
    assert problems(0, {}, {}, HOPS) == [
        "no request was answered",
        "no request went from default/a to default/b",
    ]


def route(*weights: int) -> HTTPRoute:
    backends = [
        {"name": f"catalog-v{index}", "port": 80, "weight": weight}
        for index, weight in enumerate(weights, 1)
    ]
    return msgspec.convert(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "catalog"},
            "spec": {"rules": [{"backendRefs": backends}]},
        },
        HTTPRoute,
    )


def test_hops_follow_the_route() -> None:
    """A version that gets nothing, or next to nothing, is not waited for."""
    always = {("default/visitors", "default/storefront"), ("default/storefront", "default/reviews")}
    v1, v2 = (("default/storefront", f"default/catalog-v{n}") for n in (1, 2))

    assert expected_hops([route(90, 10)]) == {*always, v1, v2}
    assert expected_hops([route(0, 100)]) == {*always, v2}
    assert expected_hops([route(99, 1)]) == {*always, v1}
    assert expected_hops([]) == {*always, v1, v2}
