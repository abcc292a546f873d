"""From counters of sidecars to traffic on edges."""

from math import inf

import pytest

from control_plane.cli import traffic
from control_plane.cli.traffic import (
    Edge,
    Tally,
    Traffic,
    edges,
    increase,
    name_of,
    parse,
    quantile,
    refusal_of,
)

SHOP = "spiffe://td/ns/default/sa/shop"
EXPOSITION = """\
# TYPE mesh_requests_total counter
mesh_requests_total{direction="inbound",source="spiffe://td/ns/default/sa/shop",destination="default/catalog-v1",version="v1",route="r",protocol="h1",code="200",flag="-"} 90
mesh_requests_total{direction="inbound",source="spiffe://td/ns/default/sa/shop",destination="default/catalog-v1",version="v1",route="r",protocol="h1",code="503",flag="-"} 10
mesh_requests_total{direction="inbound",source="plaintext",destination="default/catalog-v1",version="v1",route="r",protocol="h1",code="200",flag="-"} 1
mesh_requests_total{direction="outbound",source="default/catalog-v1",destination="default/reviews",version="v1",route="r",protocol="h1",code="200",flag="-"} 7
mesh_requests_total{direction="outbound",source="default/catalog-v1",destination="default/gone",version="",route="r",protocol="h1",code="503",flag="UH"} 2
mesh_requests_total{direction="outbound",source="default/catalog-v1",destination="-",version="-",route="HTTPRoute/default/maps/0",protocol="h1",code="500",flag="NC"} 4
# TYPE mesh_request_duration_seconds histogram
mesh_request_duration_seconds_bucket{direction="inbound",source="spiffe://td/ns/default/sa/shop",destination="default/catalog-v1",version="v1",route="r",le="0.01"} 50
mesh_request_duration_seconds_bucket{direction="inbound",source="spiffe://td/ns/default/sa/shop",destination="default/catalog-v1",version="v1",route="r",le="+Inf"} 100
mesh_request_duration_seconds_sum{direction="inbound",source="spiffe://td/ns/default/sa/shop",destination="default/catalog-v1",version="v1",route="r"} 1.5
# TYPE mesh_refusals_total counter
mesh_refusals_total{direction="outbound",code="no_healthy_endpoint"} 2
# TYPE mesh_config_age_seconds gauge
mesh_config_age_seconds 12
"""


def test_edges_are_counted_where_requests_arrive() -> None:
    """Identity as proved; plaintext by that name; from outbound only what never arrived."""
    found = edges(parse(EXPOSITION))

    assert set(found) == {
        Edge("default/shop", "default/catalog-v1", "v1", SHOP),
        Edge("plaintext", "default/catalog-v1", "v1", ""),
        Edge("default/catalog-v1", "default/gone", "", "", arrived=False),
        Edge("default/catalog-v1", "default/maps", "", "", arrived=False),
    }
    refused = found[Edge("default/catalog-v1", "default/maps", "", "", arrived=False)]
    assert refused.refusals == {"unresolved-backend": 4}
    flowed = found[Edge("default/shop", "default/catalog-v1", "v1", SHOP)]
    assert flowed.codes == {"200": 90, "503": 10}
    assert flowed.success == pytest.approx(0.9)
    assert flowed.quantile(0.5) == pytest.approx(0.01)


def test_a_refusal_has_its_name_where_that_is_certain() -> None:
    """Else its status and flag, which several share."""
    assert refusal_of("500", "NC") == "unresolved-backend"
    assert refusal_of("503", "UF") == "503 UF"
    assert refusal_of("200", "XX") == "200 XX"


def test_other_metrics_can_be_summed() -> None:
    """Over all their labels."""
    assert traffic.count(traffic.REFUSALS, parse(EXPOSITION)) == 2


def test_nothing_has_no_success() -> None:
    """Without requests there is no share and no latency."""
    assert Traffic().success is None
    assert Traffic().quantile(0.5) is None


def test_a_counter_that_fell_was_started_anew() -> None:
    """A sidecar that restarted counts from zero."""
    series = ("m", frozenset({("a", "b")}))
    other = ("m", frozenset({("a", "c")}))

    assert increase({series: 10.0}, {series: 3.0, other: 1.0}) == {series: 3.0, other: 1.0}


def test_a_tally_begins_at_the_first_look() -> None:
    """What was counted before does not count; sidecars that come and go do not disturb."""
    series = ("m", frozenset({("a", "b")}))
    tally = Tally()

    assert tally.look({"one": {series: 100.0}}) == {}
    assert tally.look({"one": {series: 103.0}, "two": {series: 50.0}}) == {series: 3.0}
    assert tally.look({"two": {series: 51.0}}) == {series: 1.0}
    assert tally.look({"one": {series: 104.0}, "two": {series: 51.0}}) == {series: 1.0}
    assert tally.total == {series: 5.0}


def test_a_gauge_is_where_it_stands() -> None:
    """It neither rises nor is summed up over time; over sidecars it is."""
    series = (traffic.OPEN, frozenset({("a", "b")}))
    tally = Tally()
    tally.look({"one": {series: 5.0}, "two": {series: 2.0}})
    assert tally.standing == {series: 7.0}

    assert tally.look({"one": {series: 3.0}}) == {}
    assert tally.standing == {series: 3.0}
    assert tally.total == {}


@pytest.mark.parametrize(
    ("share", "buckets", "expected"),
    [
        (0.5, {1.0: 10.0, 2.0: 20.0, inf: 20.0}, 1.0),
        (0.75, {1.0: 10.0, 2.0: 20.0, inf: 20.0}, 1.5),
        (0.99, {1.0: 10.0, 2.0: 20.0, inf: 40.0}, 2.0),
        (0.25, {1.0: 0.0, 2.0: 4.0, inf: 4.0}, 1.25),
        (1.0, {1.0: 4.0, 2.0: 4.0, inf: 4.0}, 1.0),
        (0.5, {1.0: 0.0, inf: 0.0}, None),
        (0.5, {}, None),
    ],
)
def test_quantiles_interpolate_within_a_bucket(
    share: float, buckets: dict[float, float], expected: float | None
) -> None:
    """As PromQL's histogram_quantile: linear, and never beyond the last finite bound."""
    assert quantile(share, buckets) == expected


def test_identities_are_shortened_to_names() -> None:
    """What is no SPIFFE ID of a workload stays as it is."""
    assert name_of(SHOP) == "default/shop"
    assert name_of("plaintext") == "plaintext"
    assert name_of("spiffe://td/other/path") == "spiffe://td/other/path"
