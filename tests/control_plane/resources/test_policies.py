import re
from typing import get_args

import msgspec

from control_plane.resources import policies
from meshproxy.contract.policies import RetryCondition


def test_fields_are_camel_case() -> None:
    """Also where the rule of thumb would make ``5Xx`` of ``5xx``, or a keyword stands in the way."""
    for one in vars(policies).values():
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            for field in msgspec.structs.fields(one):
                assert re.fullmatch(r"[a-z]+([A-Z0-9][a-z]*)*", field.encode_name), (
                    field.encode_name
                )
    names = {field.encode_name for field in msgspec.structs.fields(policies.OutlierDetection)}
    assert "consecutive5xxErrors" in names
    assert "from" in {field.encode_name for field in msgspec.structs.fields(policies.FaultRule)}


def test_conditions_of_retries_are_those_of_the_contract() -> None:
    """One list, in the words of Envoy's `x-envoy-retry-on` where it has them."""
    assert {"connect-failure", "5xx", "grpc-unavailable"} <= set(get_args(RetryCondition))
