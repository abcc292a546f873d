"""Was the demo a success?"""

import msgspec

from control_plane.cli.traffic import HANDSHAKE_FAILURES, REQUESTS, Series, edges
from control_plane.cli.verdict import expected_hops, problems, proved
from control_plane.resources.gateway_api import HTTPRoute

HOPS = {("default/a", "default/b")}


def requests(
    source: str = "spiffe://td/ns/default/sa/a", code: str = "200", flag: str = "-"
) -> Series:
    labels = {
        "direction": "inbound",
        "source": source,
        "destination": "default/b",
        "code": code,
        "flag": flag,
    }
    return REQUESTS, frozenset(labels.items())


def refused() -> Series:
    labels = {"direction": "outbound", "source": "default/a", "code": "500", "flag": "NC"}
    return REQUESTS, frozenset({**labels, "route": "HTTPRoute/default/b/0"}.items())


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


COUNTERS = {
    requests(): 300.0,
    requests(code="404"): 1.0,
    requests(code="500"): 2.0,
    refused(): 3.0,
    metric(HANDSHAKE_FAILURES): 4.0,
}


def test_what_the_sidecars_saw_tells_why_requests_failed() -> None:
    """Which refusal how often for which service, answers that are 5xx, handshakes that failed."""
    assert problems(300, {"500 x": 5}, COUNTERS, HOPS) == [
        "5 of 305 requests failed, 5 of them: 500 x",
        "3 × unresolved-backend for default/b, called by default/a",  # noqa: RUF001
        "default/a → default/b: answered 2 with 500",
        "4 TLS handshakes failed",
    ]


def test_requests_of_others_are_not_judged() -> None:
    """A curl of whoever watches may get a 404, or be refused."""
    plain = requests("plaintext", code="403", flag="UAEX")

    assert problems(300, {}, {**COUNTERS, plain: 1.0}, HOPS) == []


def test_what_never_travelled_is_no_matter_of_mtls() -> None:
    """It is not in the count of which each must be proved; plaintext that was served is."""
    assert proved(edges(COUNTERS)) == (303, 303)
    assert proved(edges({**COUNTERS, requests("plaintext"): 2.0})) == (303, 305)
    refused_plain = requests("plaintext", code="403", flag="UAEX")
    assert proved(edges({**COUNTERS, refused_plain: 2.0})) == (303, 303)


def test_a_run_too_short_for_every_hop_is_no_failure() -> None:
    """A tenth of a few requests may be none."""
    assert problems(20, {}, {}, HOPS) == []
    assert problems(1000, {}, {}, HOPS) == ["no request went from default/a to default/b"]


def test_a_demo_without_traffic_is_none() -> None:
    """Whatever the sidecars say."""
    assert problems(0, {}, {}, HOPS) == [
        "no request was answered",
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
