"""An error about an unknown field names the field that was meant, also where that is a level below."""

import pytest
from msgspec import Struct, inspect

from control_plane.resources.meant import nearest, nearest_field
from control_plane.resources.model import KINDS


@pytest.mark.parametrize(
    ("kind", "word", "meant"),
    [
        # What people write, and where it belongs.
        ("RateLimitPolicy", "requests", '"rules[].requests"'),
        ("RateLimitPolicy", "interval", '"rules[].interval"'),
        (
            "TrafficPolicy",
            "requests",
            '"timeouts.request" or "circuitBreaker.minRequests" or "limits.maxR',
        ),
        ("TrafficPolicy", "attempts", '"retry.attempts"'),
        ("TrafficPolicy", "timeout", '"timeouts"'),
        ("TrafficPolicy", "retries", '"retry"'),
        ("TrafficPolicy", "maxConnections", '"maxConnectionAge" or "limits.maxConnections"'),
        ("TrafficPolicy", "targetRef", '"targetRefs"'),
        ("FaultInjection", "delay", '"rules[].delay"'),
        ("AuthorizationPolicy", "requests", '"rules"'),
        ("AuthorizationPolicy", "when", '"rules[].when"'),
        ("AuthorizationPolicy", "principals", '"rules[].from[].source.principals"'),
        ("AuthorizationPolicy", "SELECTOR", '"selector"'),
        ("RequestAuthentication", "issuer", '"jwtRules[].issuer"'),
        ("RequestAuthentication", "jwksUri", '"jwtRules[].jwksUri"'),
        ("PeerAuthentication", "mode", '"mtls.mode"'),
        ("HTTPRoute", "backendRefs", '"rules[].backendRefs"'),
        ("Service", "targetPort", '"ports[].targetPort"'),
    ],
)
def test_fields_of_a_spec(kind: str, word: str, meant: str) -> None:
    """Of the very name first, whatever the case; then of nearly the name; the nearest of several first."""
    [model] = {model for (_, name), model in KINDS.items() if name == kind}
    info = inspect.type_info(model)
    assert isinstance(info, inspect.StructType)
    [spec] = [field.type for field in info.fields if field.name == "spec"]
    assert isinstance(spec, inspect.StructType)
    assert nearest_field(word, spec).startswith(f"did you mean {meant}")


class Inner(Struct):
    path: str
    jwksUri: str  # noqa: N815  # as people see it


class Outer(Struct):
    jwks: str
    one: Inner | None = None
    many: tuple[Inner, ...] = ()


def test_several_and_none() -> None:
    """Each way where there are several; all that there is where nothing is like it."""
    info = inspect.type_info(Outer)
    assert isinstance(info, inspect.StructType)
    assert nearest_field("path", info) == 'did you mean "many[].path" or "one.path"?'
    assert nearest_field("JwksURI", info) == 'did you mean "many[].jwksUri" or "one.jwksUri"?'
    assert nearest_field("zzz", info) == "expected one of jwks, many, one"


def test_words() -> None:
    """The same for what is no field: kinds, names, protocols."""
    assert nearest("svc", ["Service", "Workload"]) == "expected one of Service, Workload"
    assert nearest("servcie", ["Service", "Workload"]) == 'did you mean "Service"?'
    assert nearest("SERVICE", ["Service", "Services"]) == 'did you mean "Service"?'
