import msgspec
import pytest

from meshproxy.contract.matching import MatchSpec
from meshproxy.contract.resources import (
    KINDS,
    SECTIONS,
    ClusterSpec,
    DestinationSpec,
    EndpointsSpec,
    ListenerSpec,
    Resource,
    RouteSpec,
    Snapshot,
    TcpRouteSpec,
    TrustSpec,
    VirtualHostSpec,
    name_of,
    without_secrets,
)
from meshproxy.contract.spec import Spec

ONE_OF_EACH: list[tuple[Resource, str]] = [
    (TrustSpec(trust_domain="mesh.local", roots=("PEM",)), "mesh.local"),
    (ClusterSpec(name="catalog"), "catalog"),
    (EndpointsSpec(cluster="catalog"), "catalog"),
    (TcpRouteSpec(name="default/broker:5672"), "default/broker:5672"),
    (VirtualHostSpec(name="default/catalog:80"), "default/catalog:80"),
    (DestinationSpec(name="catalog", direction="outbound", port=80), "catalog"),
    (
        ListenerSpec(name="out", direction="outbound", address="127.0.0.1", port=15001),
        "out",
    ),
]


@pytest.mark.parametrize(("resource", "name"), ONE_OF_EACH)
def test_every_resource_has_a_name(resource: Resource, name: str) -> None:
    """Unique within its kind; deltas and versions go by it."""
    assert name_of(resource) == name


def test_every_kind_has_a_type_and_a_section() -> None:
    """Kinds are listed in three places; none may forget one."""
    assert list(KINDS) == list(SECTIONS)
    assert {type(resource) for resource, _ in ONE_OF_EACH} == set(KINDS.values())
    sections = {field for field in Snapshot.__struct_fields__ if field != "version"}
    assert set(SECTIONS.values()) == sections


def test_kinds_come_in_make_before_break_order() -> None:
    """What is referred to comes before what refers to it, so no request sees a gap."""
    order = list(KINDS)
    assert order.index("trust") < order.index("cluster") < order.index("endpoints")
    assert order.index("endpoints") < order.index("virtual_host") < order.index("destination")
    assert order.index("endpoints") < order.index("tcp_route") < order.index("destination")
    assert order[-1] == "listener"


def test_specs_cannot_be_changed() -> None:
    """A request lives under the snapshot it started with."""
    with pytest.raises(AttributeError):
        ClusterSpec(name="a").mtls = True  # type: ignore[misc]


def test_defaults_are_those_that_the_docs_promise() -> None:
    """An empty match takes every request; a listener demands nothing; a cluster is plain."""
    assert RouteSpec(name="r").match == MatchSpec()
    assert MatchSpec() == MatchSpec(path=None, method=None, headers=(), query=())
    assert ListenerSpec(name="l", direction="inbound", address="::", port=1).mtls == "disabled"
    cluster = ClusterSpec(name="c")
    assert (cluster.connect_timeout, cluster.idle_timeout, cluster.mtls) == (5_000, 60_000, False)


def specs(base: type[Spec] = Spec) -> list[type[Spec]]:
    return [base, *(deeper for direct in base.__subclasses__() for deeper in specs(direct))]


@pytest.mark.parametrize("spec", specs(), ids=lambda s: s.__name__)
def test_every_spec_is_strict_and_frozen(spec: type[Spec]) -> None:
    """A field that nobody knows is an error, in every part of the contract."""
    info = msgspec.inspect.type_info(spec)
    assert isinstance(info, msgspec.inspect.StructType)
    assert info.forbid_unknown_fields
    assert spec.__struct_config__.frozen
    assert spec.__struct_config__.omit_defaults


def test_what_people_look_at_has_no_secrets() -> None:
    """But says that there is one."""
    one = TrustSpec(trust_domain="a", roots=("PEM",), session_secret="5e" * 32)
    other = TrustSpec(trust_domain="b", roots=())
    shown = without_secrets(Snapshot(version="v1", trust=(one, other)))
    assert shown.trust == (
        TrustSpec(trust_domain="a", roots=("PEM",), session_secret="hidden"),
        other,
    )
    assert shown.version == "v1"
