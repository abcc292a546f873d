"""What the documents promise is what is tried."""

import re
from typing import Any

import msgspec
import pytest

from control_plane.generate.traffic_policy import at_callers, at_workloads
from control_plane.generate.traffic_shaping import faults, rate_limits
from control_plane.resources.policies import FaultInjection, RateLimitPolicy, TrafficPolicy
from meshproxy.contract.resources import ClusterSpec
from meshproxy.refusal import REFUSALS
from tests.helpers.fault_matrix.document import DOCUMENT, parts, tables
from tests.helpers.fault_matrix.row import Policy, Row
from tests.helpers.fault_matrix.rows import MATRIX
from tests.helpers.mesh import policy as written
from tests.helpers.mesh import source


def test_the_document_shows_the_matrix() -> None:
    """`python -m tests.helpers.fault_matrix.document` writes the tables anew."""
    assert parts(DOCUMENT.read_text())[1].strip() == tables().strip()


def test_a_refusal_is_said_in_the_words_of_each_protocol() -> None:
    """One code stands for the HTTP status, the gRPC status and the flag that belong to it."""
    row = Row("closed", "at=head do=close", "upstream-closed or 200", lanes={"http2": None})
    assert row.expected("http1") == ("502 upstream-closed", "200")
    assert row.expected("http2") == ()
    assert row.expected("grpc") == ("14 upstream-closed", "0")
    assert row.flags("http1") == (REFUSALS["upstream-closed"].flag, "-")


CLUSTER = ClusterSpec(name="default/a:80")
SPAN = re.compile(r"`(\w+: [^`]*)`")
OTHER_KIND = re.compile(r"A (RateLimitPolicy|FaultInjection) with `([^`]*)`")


@pytest.mark.parametrize("policy", [pytest.param(one, id=one.name) for one, _ in MATRIX])
def test_what_the_document_tells_to_write_is_what_is_tried(policy: Policy) -> None:
    """The YAML above a table, taken as a person's file, makes of a service what its rows are tried on."""
    text = OTHER_KIND.sub("", policy.text)
    spec = resource("TrafficPolicy", ", ".join(SPAN.findall(text))).spec
    outbound = msgspec.structs.replace(CLUSTER, **policy.cluster, **in_cluster(policy.route))
    assert at_callers(CLUSTER, spec, "http2") == outbound
    assert at_workloads(CLUSTER, [spec] if spec.load_shedding else []) == msgspec.structs.replace(
        CLUSTER, **policy.inbound
    )
    other = OTHER_KIND.search(policy.text)
    made = () if other is None else shaping(resource(other[1], other[2]))
    assert made == policy.route.get("rate_limits", ()) + policy.route.get("faults", ())


def resource(kind: str, spec: str) -> Any:
    return source(written("p", spec, kind=kind)).resource


def in_cluster(route: Any) -> dict[str, Any]:
    """Return what a route says that a TrafficPolicy can say as well."""
    return {name: value for name, value in route.items() if name in ClusterSpec.__struct_fields__}


def shaping(resource: TrafficPolicy | RateLimitPolicy | FaultInjection) -> tuple[Any, ...]:
    return rate_limits(resource) if isinstance(resource, RateLimitPolicy) else faults(resource)  # type: ignore[arg-type]
