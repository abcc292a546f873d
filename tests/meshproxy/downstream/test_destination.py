"""What a connection is meant for, and who makes it."""

import gc
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

from meshproxy.contract.authorization import (
    AuthorizationRuleSpec,
    AuthorizationSpec,
    OperationSpec,
    SourceSpec,
)
from meshproxy.contract.resources import (
    ListenerSpec,
    RouteSpec,
    TcpRouteSpec,
    TcpRuleSpec,
    VirtualHostSpec,
)
from meshproxy.downstream.destination import Caller, Destination
from meshproxy.exchange import Exchange
from meshproxy.message import RequestHead
from meshproxy.neighbours import Cluster
from meshproxy.relay import Cluster as RelayCluster
from meshproxy.routing.table import Authorities, VirtualHost, compile_virtual_host
from meshproxy.routing.tcp import TcpRoute, compile_tcp_route
from tests.helpers.environment import Environment

PEER = "spiffe://test.mesh/ns/default/sa/storefront"
HOST: VirtualHost[Cluster] = compile_virtual_host(
    VirtualHostSpec(name="inbound", routes=(RouteSpec(name="all"),)), {}
)
NOBODY: Authorities[Cluster] = Authorities([])


def spec(**options: Any) -> ListenerSpec:
    fields: dict[str, Any] = {"direction": "inbound", "port": 5672} | options
    return ListenerSpec(name="a", address="127.0.0.1", **fields)


def route(*names: str) -> TcpRoute[RelayCluster]:
    return compile_tcp_route(
        TcpRouteSpec(name="r", rules=(TcpRuleSpec(name="all", server_names=names),)), {}
    )


@pytest.fixture
async def environment() -> Environment:
    return Environment()


async def test_configuration_reaches_who_is_connected(environment: Environment) -> None:
    """Callers follow the destination; they are the same objects as before."""
    destination = Destination(environment, spec())
    destination.obey(spec(), HOST, NOBODY)
    caller = destination.caller(PEER)
    assert (caller.virtual_host, caller.tcp_route) == (HOST, None)
    tcp = route()
    destination.obey(spec(port=5673, protocol="tcp"), None, NOBODY, tcp)
    assert destination.caller(PEER) is caller
    assert (caller.virtual_host, caller.tcp_route, caller.authorities) == (None, tcp, NOBODY)
    assert repr(destination) == "<Destination inbound :5673 tcp>"


@pytest.mark.parametrize(
    ("protocol", "tcp_route", "opaque"),
    [
        ("tcp", route(), True),
        ("tcp", None, True),
        ("tcp", route("a.b"), False),
        ("detect", route(), False),
        ("http", None, False),
    ],
)
async def test_when_no_byte_has_to_be_seen(
    environment: Environment, protocol: Any, tcp_route: Any, opaque: bool
) -> None:
    """Only where nothing in them could change anything."""
    destination = Destination(environment, spec())
    destination.obey(spec(protocol=protocol), None, NOBODY, tcp_route)
    assert destination.opaque == opaque


async def test_connections_are_counted_by_who_makes_them(environment: Environment) -> None:
    """Inbound the source is the proved identity, outbound the app beside us."""
    inbound = Destination(environment, spec())
    inbound.obey(spec(), HOST, NOBODY)
    for identity in (PEER, PEER, None):
        inbound.caller(identity).connections("all", "app").opened += 1
    outbound = Destination(environment, spec(direction="outbound"))
    outbound.obey(spec(), HOST, NOBODY)
    outbound.caller(None).connections("all", "default/broker").opened += 1
    assert {key: series.opened for key, series in environment.metrics._tcp.items()} == {
        ("inbound", PEER, "default/catalog", "all"): 2,
        ("inbound", "plaintext", "default/catalog", "all"): 1,
        ("outbound", "default/catalog", "default/broker", "all"): 1,
    }


async def test_a_proxy_of_many_places_knows_them_by_name(environment: Environment) -> None:
    """In any spelling of the name; whoever has no places has none."""
    proxy, place = Destination(environment, spec()), Destination(environment, spec())
    proxy.obey(spec(), None, NOBODY)
    caller = proxy.caller(None)
    assert not caller.leads_to(b"broker.default:5672")
    proxy.places = {b"broker.default:5672": place}
    assert caller.leads_to(b"Broker.default.:5672")
    assert proxy.place(b"broker.default:5672") is place
    assert proxy.place(b"broker.default:22") is None
    assert proxy.place(b"[broken") is None


async def test_requests_are_counted_by_protocol(environment: Environment) -> None:
    """Each has a series of its own, asked for once; a gRPC call is counted by its status, too."""
    destination = Destination(environment, spec())
    destination.obey(spec(), HOST, NOBODY)
    caller = destination.caller(PEER)
    http2 = caller.series["r", "default/other", "v9", "http2"]
    assert caller.series["r", "default/other", "v9", "http2"] is http2
    assert caller.series["r", "default/other", "v9", "grpc"] is not http2
    keys = [key for key, _ in environment.metrics.all_requests()]
    assert keys == [
        ("inbound", PEER, "default/catalog", "v1", "r", protocol) for protocol in ("http2", "grpc")
    ]
    caller.grpc_ended("r", "default/other", "0")
    assert b'mesh_grpc_responses_total{destination="default/catalog",direction="inbound",' in (
        environment.metrics.render(0.0)
    )


async def test_a_policy_about_addresses_holds_for_connections_that_are_older(
    environment: Environment,
) -> None:
    """Each request is judged by the address that it comes from, whenever it was connected."""

    class Client(NamedTuple):
        address: str

    def host(*policies: AuthorizationSpec) -> VirtualHost[Any]:
        virtual = VirtualHostSpec(name="inbound", domains=("*",), authorization=policies)
        return compile_virtual_host(virtual, {})

    destination = Destination(environment, spec())
    destination.obey(spec(), host(), NOBODY)
    assert destination.caller(PEER).guard is None
    there = AuthorizationRuleSpec(sources=(SourceSpec(ip_blocks=("192.0.2.0/24",)),))
    deny = AuthorizationSpec(name="default/deny", action="deny", rules=(there,))
    destination.obey(spec(), host(deny), NOBODY)
    guard = destination.caller(PEER).guard
    assert guard is not None
    head = RequestHead(b"GET", b"catalog", b"/", [])
    assert guard.stop(head, Client("192.0.2.7")) is not None
    assert guard.stop(head, Client("198.51.100.1")) is None
    destination.obey(spec(), host(), NOBODY)
    assert destination.caller(PEER).guard is None


async def test_who_has_gone_is_forgotten(environment: Environment) -> None:
    """
    Identities come and go with every release; those of whom there is a connection are kept.

    Without a turn of the collector: a table of the dead would be as large as it is lazy.
    """
    destination = Destination(environment, spec())
    there = AuthorizationRuleSpec(sources=(SourceSpec(ip_blocks=("192.0.2.0/24",)),))
    deny = AuthorizationSpec(name="default/deny", action="deny", rules=(there,))
    virtual = VirtualHostSpec(name="inbound", domains=("*",), authorization=(deny,))
    destination.obey(spec(), compile_virtual_host(virtual, {}), NOBODY)
    stays = destination.caller(PEER)
    gc.disable()
    try:
        for number in range(20_000):
            caller = destination.caller(f"{PEER}-{number}")
            caller.series["all", "default/catalog", "v1", "http"].record(200, "-", 0.0)
    finally:
        gc.enable()
    del caller
    assert dict(destination._callers) == {PEER: stays}
    stranger = destination.caller(None)
    destination.obey(spec(), HOST, NOBODY)
    assert (stays.virtual_host, stranger.virtual_host) == (HOST, HOST)
    assert destination.caller(None) is stranger


class Stream:
    """A stream that is open."""

    def __init__(self, caller: Caller, path: bytes, *, lasting: bool = True) -> None:
        self.caller, self.lasting, self.done = caller, lasting, False
        self.head = RequestHead(b"GET", b"catalog", path, [])
        self.downstream = SimpleNamespace(address="10.0.0.7")
        self.numbers: list[str] = []

    def on_forbidden(self, number: str) -> None:
        self.numbers.append(number)


async def test_other_policies_end_the_streams_that_they_forbid(environment: Environment) -> None:
    """Of this place alone, lasting ones alone, and only when it is other policies that have come."""
    deny = AuthorizationSpec(
        name="default/deny",
        action="deny",
        rules=(AuthorizationRuleSpec(operations=(OperationSpec(paths=("/chat",)),)),),
    )

    def host(*policies: AuthorizationSpec) -> VirtualHost[Cluster]:
        routes = (RouteSpec(name="all"),)
        return compile_virtual_host(
            VirtualHostSpec(name="inbound", routes=routes, authorization=policies), {}
        )

    destination, elsewhere = Destination(environment, spec()), Destination(environment, spec())
    destination.obey(spec(), host(), NOBODY)
    elsewhere.obey(spec(), host(), NOBODY)
    caller = destination.caller(PEER)
    chat, other = Stream(caller, b"/chat"), Stream(caller, b"/other")
    short = Stream(caller, b"/chat", lasting=False)
    far = Stream(elsewhere.caller(PEER), b"/chat")
    environment.exchanges = cast("set[Exchange]", {chat, other, short, far})
    destination.obey(spec(), host(deny), NOBODY)
    [number] = chat.numbers
    assert environment.denials.found(number)[0]["policy"] == "default/deny"
    assert (other.numbers, short.numbers, far.numbers) == ([], [], [])
    destination.obey(spec(), host(deny), NOBODY)  # made anew, but the same
    assert chat.numbers == [number]
    destination.obey(spec(), host(), NOBODY)
    assert other.numbers == []
