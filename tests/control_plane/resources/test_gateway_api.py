from typing import get_args, get_type_hints

import msgspec
import pytest

from control_plane.resources import gateway_api
from control_plane.resources.gateway_api import GRPCRouteFilter, HTTPRouteFilter


@pytest.mark.parametrize("model", [HTTPRouteFilter, GRPCRouteFilter])
def test_every_type_of_filter_has_its_section(model: type[msgspec.Struct]) -> None:
    """As in the CRD: ``type: RequestMirror`` and `requestMirror`."""
    types = get_args(get_type_hints(model)["type"])
    sections = {field.encode_name for field in msgspec.structs.fields(model)} - {"type"}
    named = {
        name.replace("URL", "url")[0].lower() + name.replace("URL", "url")[1:] for name in types
    }
    assert named == sections


def test_fields_of_rules_are_those_of_the_gateway_api() -> None:
    """Timeouts of a GRPCRoute are ours; retries it has none."""
    names = {
        model: {field.encode_name for field in msgspec.structs.fields(model)}
        for model in (gateway_api.HTTPRouteRule, gateway_api.GRPCRouteRule)
    }
    both = {"name", "matches", "filters", "backendRefs", "timeouts", "sessionPersistence"}
    assert names == {gateway_api.HTTPRouteRule: both | {"retry"}, gateway_api.GRPCRouteRule: both}
