import msgspec

from control_plane.resources import model
from control_plane.resources.model import IGNORED, KINDS


def test_every_kind_says_its_own_name() -> None:
    """The key in KINDS is what the model accepts as apiVersion and kind."""
    for (version, kind), cls in KINDS.items():
        required: dict[str, dict[str, list[object]]] = {
            "Service": {"ports": []},
            "TrafficPolicy": {"targetRefs": []},
            "RateLimitPolicy": {"rules": []},
            "FaultInjection": {"rules": []},
            "RequestAuthentication": {"jwtRules": []},
        }
        spec = required.get(kind, {})
        made = msgspec.convert(
            {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec}, cls
        )
        assert (made.api_version, made.kind) == (version, kind)


def test_fields_are_named_as_in_kubernetes() -> None:
    """Where camel case alone would be wrong (clusterIP), the model says so."""
    names = {field.encode_name for field in msgspec.structs.fields(model.ServiceSpec)}
    assert names == {"ports", "selector", "type", "clusterIP", "sessionAffinity"}


def test_what_is_ignored_is_not_a_field() -> None:
    """A field is either read or ignored."""
    for cls, ignored in IGNORED.items():
        fields = {field.encode_name for field in msgspec.structs.fields(cls)}
        assert not fields & ignored
