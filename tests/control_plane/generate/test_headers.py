from control_plane.generate.headers import request_headers, response_headers
from control_plane.resources.gateway_api import GRPCRouteFilter, HTTPHeader, HTTPHeaderFilter
from meshproxy.contract.resources import HeaderModifierSpec, HeaderSpec

CHANGES = HTTPHeaderFilter(
    set=(HTTPHeader(name="a", value="b"),), add=(HTTPHeader(name="c", value="d"),), remove=("e",)
)


def test_each_side_has_its_own() -> None:
    """What is changed in requests is not changed in responses."""
    only = GRPCRouteFilter(type="RequestHeaderModifier", request_header_modifier=CHANGES)
    assert request_headers([only]) == HeaderModifierSpec(
        set=(HeaderSpec(name="a", value="b"),), add=(HeaderSpec(name="c", value="d"),), remove=("e",)
    )  # fmt: skip
    assert response_headers([only]) is None
    assert request_headers([]) is None
