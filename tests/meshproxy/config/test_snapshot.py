"""A snapshot is obeyed whole or not at all, and what stayed goes on."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec import structs

from meshproxy.config.snapshot import Mesh
from meshproxy.contract.matching import MatchSpec, PathMatchSpec
from meshproxy.contract.policies import (
    HashKeySpec,
    LimitsSpec,
    LoadBalancingSpec,
    RetrySpec,
    SessionPersistenceSpec,
)
from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    DestinationSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    TrustSpec,
    VirtualHostSpec,
)
from meshproxy.contract.wire import ContractError
from meshproxy.downstream import captured
from meshproxy.downstream.original_destination import Address
from meshproxy.downstream.sockets import listen
from tests.helpers.client import connect, get
from tests.helpers.environment import Environment, until
from tests.helpers.origin import Conversation, Origin, hello, origin
from tests.helpers.ports import free_port


@pytest.fixture
async def environment() -> Environment:
    return Environment()


@pytest.fixture
async def mesh(environment: Environment) -> AsyncIterator[Mesh]:
    mesh = Mesh(environment)
    yield mesh
    mesh.close()
    await until(lambda: mesh.connections == 0)


@pytest.fixture
async def app() -> AsyncIterator[Origin]:
    async with origin(hello) as app:
        yield app


def listener(port: int, name: str = "door", host: str | None = "catalog") -> ListenerSpec:
    return ListenerSpec(
        name=name, direction="outbound", address="127.0.0.1", port=port, virtual_host=host
    )


def snapshot(app: int, *listeners: ListenerSpec, **more: Any) -> Snapshot:
    """One service, one endpoint."""
    route = RouteSpec(name="all", backends=(BackendSpec(cluster="catalog"),))
    return Snapshot(
        **{
            "clusters": (ClusterSpec(name="catalog"),),
            "endpoints": (
                EndpointsSpec(
                    cluster="catalog", endpoints=(EndpointSpec(address="127.0.0.1", port=app),)
                ),
            ),
            "virtual_hosts": (
                VirtualHostSpec(name="catalog", domains=("catalog:80",), routes=(route,)),
            ),
            "listeners": listeners,
            **more,
        }
    )


def bad_regex(good: Snapshot) -> Snapshot:
    match = MatchSpec(path=PathMatchSpec(type="regex", value="(["))
    host = VirtualHostSpec(name="catalog", routes=(RouteSpec(name="r", match=match),))
    return snapshot(1, *good.listeners, virtual_hosts=(host,))


def unknown_cluster(good: Snapshot) -> Snapshot:
    return snapshot(1, *good.listeners, clusters=(), endpoints=())


def endpoints_of_nothing(good: Snapshot) -> Snapshot:
    return snapshot(1, *good.listeners, endpoints=(EndpointsSpec(cluster="reviews"),))


def endpoints_twice(good: Snapshot) -> Snapshot:
    return snapshot(1, *good.listeners, endpoints=good.endpoints * 2)


def unknown_host(good: Snapshot) -> Snapshot:
    return snapshot(1, *good.listeners, listener(free_port(), "other", "reviews"))


def taken_port(good: Snapshot) -> Snapshot:
    return snapshot(1, *good.listeners, listener(TAKEN.getsockname()[1], "other"))


def same_place_twice(good: Snapshot) -> Snapshot:
    return snapshot(1, *good.listeners, listener(good.listeners[0].port, "other"))


def listener_twice(good: Snapshot) -> Snapshot:
    return snapshot(1, *good.listeners, listener(free_port()))


def host_twice(good: Snapshot) -> Snapshot:
    return snapshot(1, *good.listeners, virtual_hosts=good.virtual_hosts * 2)


def cluster_twice(good: Snapshot) -> Snapshot:
    return snapshot(1, *good.listeners, clusters=good.clusters * 2)


def destination(name: str, host: str | None = "catalog", **more: Any) -> DestinationSpec:
    return DestinationSpec(
        **{"name": name, "direction": "outbound", "port": 80, "virtual_host": host, **more}
    )


def with_destinations(*destinations: DestinationSpec) -> Callable[[Snapshot], Snapshot]:
    return lambda good: snapshot(1, *good.listeners, destinations=destinations)


TAKEN = socket.socket()
TAKEN.bind(("127.0.0.1", 0))
TAKEN.listen()


@pytest.fixture(scope="module", autouse=True)
def _give_back() -> Any:
    yield
    TAKEN.close()


@pytest.mark.parametrize(
    ("bad", "where"),
    [
        (bad_regex, "virtual_host/catalog routes[0].match.path"),
        (unknown_cluster, "virtual_host/catalog routes[0].backends[0].cluster"),
        (endpoints_of_nothing, "endpoints/reviews"),
        (endpoints_twice, "endpoints/catalog"),
        (unknown_host, "listener/other virtual_host"),
        (taken_port, "listener/other port"),
        (same_place_twice, "listener/other port"),
        (listener_twice, "listener/door"),
        (host_twice, "virtual_host/catalog"),
        (cluster_twice, "cluster/catalog"),
        (with_destinations(destination("a", "reviews")), "destination/a virtual_host"),
        (with_destinations(destination("a", tcp_route="db")), "destination/a tcp_route"),
        (with_destinations(destination("a", addresses=("db",))), "destination/a addresses[0]"),
        (with_destinations(destination("a"), destination("a", port=81)), "destination/a"),
        (with_destinations(destination("a"), destination("b")), "destination/b addresses"),
        (
            with_destinations(
                destination("a", addresses=("fd00::1",)), destination("b", addresses=("FD00:0::1",))
            ),
            "destination/b addresses",
        ),
    ],
)
async def test_what_cannot_be_obeyed_changes_nothing(
    mesh: Mesh, app: Origin, bad: Callable[[Snapshot], Snapshot], where: str
) -> None:
    """The error names the resource and the field; everything serves as before."""
    good = snapshot(app.port, listener(free_port()))
    mesh.adopt(good)
    before = (dict(mesh.clusters), dict(mesh.listeners), mesh.clusters["catalog"].endpoints)
    refused = bad(good)
    with pytest.raises(ContractError) as caught:
        mesh.adopt(refused)

    assert caught.value.path.startswith(where)
    assert (mesh.clusters, mesh.listeners, mesh.clusters["catalog"].endpoints) == before
    assert mesh.snapshot is good
    assert (await get(good.listeners[0].port)).status == 200
    opened = {spec.port for spec in refused.listeners} - {good.listeners[0].port}
    for port in opened - {TAKEN.getsockname()[1]}:  # what was opened on the way is closed again
        with pytest.raises(ConnectionRefusedError):
            await get(port)


async def test_what_stays_keeps_connections_and_counters(mesh: Mesh, app: Origin) -> None:
    """A change next to it is not felt: same listener, same pool, same connection to the app."""
    door = listener(free_port())
    mesh.adopt(snapshot(app.port, door))
    endpoint = mesh.clusters["catalog"].endpoints[0]
    before = (mesh.clusters["catalog"], endpoint, endpoint.pool, mesh.listeners["door"])
    async with connect(door.port) as client:
        for number in range(3):
            more = tuple(ClusterSpec(name=f"c{n}") for n in range(number))
            clusters = (ClusterSpec(name="catalog", idle_timeout=7), *more)
            mesh.adopt(snapshot(app.port, door, clusters=clusters))
            await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            assert (await client.response()).status == 200
    endpoint = mesh.clusters["catalog"].endpoints[0]
    assert before == (mesh.clusters["catalog"], endpoint, endpoint.pool, mesh.listeners["door"])
    assert app.connections == 1


async def test_a_request_under_way_survives_every_change(
    mesh: Mesh, environment: Environment
) -> None:
    """Its listener, route, cluster and endpoint all go; it finishes, and then nothing is left."""
    go = asyncio.Event()

    async def waits(conversation: Conversation) -> None:
        await go.wait()
        await hello(conversation)

    door = listener(free_port())
    async with origin(waits) as app:
        mesh.adopt(snapshot(app.port, door))
        old = mesh.listeners["door"]
        async with connect(door.port) as client:
            await client.send(b"GET /kept HTTP/1.1\r\nHost: catalog\r\n\r\n")
            await until(lambda: app.requests)
            mesh.adopt(Snapshot())
            assert (mesh.listeners, mesh.draining) == ({}, [old])
            with pytest.raises(ConnectionRefusedError):
                await get(door.port)
            go.set()
            response = await client.response()
            assert (response.body, response.header("connection")) == (b"/kept 0", "close")
            assert await client.rest() == b""
        await until(lambda: mesh.connections == 0)
        assert not environment.exchanges
        upstream = environment.connections_to("inbound")
        await until(lambda: upstream.active == 0)
        mesh.adopt(Snapshot())
        assert mesh.draining == []


async def test_listeners_move_swap_and_change_names(mesh: Mesh, app: Origin) -> None:
    """A place keeps its socket under another name; a new place is opened, an old one closed."""
    one, two = free_port(), free_port()
    mesh.adopt(snapshot(app.port, listener(one, "a"), listener(two, "b")))
    sockets = mesh.listeners["a"], mesh.listeners["b"]
    mesh.adopt(snapshot(app.port, listener(two, "a"), listener(one, "b")))
    assert (mesh.listeners["b"], mesh.listeners["a"]) == sockets
    mesh.adopt(snapshot(app.port, listener(one, "c")))
    assert list(mesh.listeners.values()) == [sockets[0]]
    with pytest.raises(ConnectionRefusedError):
        await get(two)
    three = free_port()
    mesh.adopt(snapshot(app.port, listener(three, "c")))
    assert (await get(three)).status == 200
    with pytest.raises(ConnectionRefusedError):
        await get(one)
    mesh.adopt(snapshot(app.port, listener(one, "c")))  # and back to where it was
    assert (await get(one)).status == 200


async def test_a_new_identity_needs_a_new_endpoint(mesh: Mesh, app: Origin) -> None:
    """What was connected under the old expectation is not trusted under the new one."""
    mesh.adopt(snapshot(app.port))
    before = mesh.clusters["catalog"].endpoints[0]
    endpoint = EndpointSpec(address="127.0.0.1", port=app.port, identities=("spiffe://a/b",))
    mesh.adopt(
        snapshot(app.port, endpoints=(EndpointsSpec(cluster="catalog", endpoints=(endpoint,)),))
    )

    assert mesh.clusters["catalog"].endpoints[0] is not before
    assert before.pool.retired


async def test_inbound_hosts_cannot_be_called_by_name(mesh: Mesh, app: Origin) -> None:
    """Only their own listener leads there; others are chosen by authority."""
    inbound = ListenerSpec(
        name="in",
        direction="inbound",
        address="127.0.0.1",
        port=free_port(),
        virtual_host="catalog",
    )
    proxy = listener(free_port(), "out", None)
    mesh.adopt(snapshot(app.port, inbound, proxy))
    assert (await get(inbound.port)).status == 200
    assert (await get(proxy.port)).header("x-mesh-refusal") == "no-route"
    mesh.adopt(snapshot(app.port, proxy))
    assert (await get(proxy.port)).status == 200


async def test_captured_connections_lead_where_they_were_meant_to_go(
    mesh: Mesh, app: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their address; what came here by itself, or to what is unknown, is turned away."""
    meant: dict[str, Address | None] = {"for": None}
    monkeypatch.setattr(captured, "original_destination", lambda _sock: meant["for"])
    monkeypatch.setattr(captured, "is_ours", lambda _client, _server: False)
    spec = structs.replace(listener(free_port(), host=None), captured=True)
    mesh.adopt(
        snapshot(
            app.port, spec, destinations=(destination("c", addresses=("10.0.0.1", "fd00::1")),)
        )
    )
    for address in ("10.0.0.1", "fd00::1"):
        meant["for"] = (address, 80)
        assert (await get(spec.port)).status == 200
    for unknown in (None, ("10.0.0.1", 81), ("10.0.0.2", 80)):
        meant["for"] = unknown
        answer = await get(spec.port)
        assert (answer.status, answer.header("x-mesh-refusal")) == (502, "unknown-destination")
    # The app's own address is as good as any, where unknown connections may pass.
    mesh.adopt(snapshot(app.port, structs.replace(spec, unknown="pass")))
    meant["for"] = ("127.0.0.1", app.port)
    assert (await get(spec.port)).status == 200


async def test_inbound_destinations_cannot_be_called_by_name(mesh: Mesh, app: Origin) -> None:
    """What captured callers of the app are led to is no service of others."""
    proxy = listener(free_port(), "out", None)
    own = destination("own", direction="inbound")
    mesh.adopt(snapshot(app.port, proxy, destinations=(own,)))
    assert (await get(proxy.port)).header("x-mesh-refusal") == "no-route"


async def test_draining_opens_nothing_new(mesh: Mesh, app: Origin) -> None:
    """A snapshot that arrives during the drain moves routes, not sockets."""
    one, two = free_port(), free_port()
    mesh.adopt(snapshot(app.port, listener(one, "a")))
    mesh.drain()
    mesh.adopt(snapshot(app.port, listener(one, "a"), listener(two, "b")))
    for port in (one, two):
        with pytest.raises(ConnectionRefusedError):
            await get(port)
    mesh.sweep(0.0)


async def test_rude_clients_and_apps_leave_nothing_behind(
    mesh: Mesh, environment: Environment
) -> None:
    """Requests cut at any point, answers torn at any point: every count returns to zero."""
    chance = random.Random(7)

    async def moody(conversation: Conversation) -> None:
        await conversation.body()
        mood = chance.random()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ncomplete"
        if mood < 0.5:
            await conversation.send(answer)
        else:
            await conversation.send(answer[: chance.randrange(len(answer))])
            conversation.writer.transport.abort()

    request = b"PUT / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 9\r\n\r\nsomething"

    async def rude() -> None:
        with contextlib.suppress(ConnectionError):
            async with connect(door.port) as client:
                for _ in range(chance.randrange(1, 4)):
                    whole = chance.random() < 0.7
                    await client.send(request[: None if whole else chance.randrange(len(request))])
                    if chance.random() < 0.3:
                        return
                    async with asyncio.timeout(0.05):
                        await client.reader.read(10_000)

    async def client() -> None:
        with contextlib.suppress(TimeoutError):
            await rude()

    door = listener(free_port())
    async with origin(moody) as app:
        limits = (
            ClusterSpec(name="catalog", endpoint_limits=LimitsSpec(connections=3, pending=20)),
        )
        mesh.adopt(snapshot(app.port, door, clusters=limits))
        for _ in range(8):
            await asyncio.gather(*(client() for _ in range(40)))
        await until(lambda: mesh.connections == 0 and not environment.exchanges)
        endpoint = mesh.clusters["catalog"].endpoints[0]
        left = endpoint.pool.statistics()
        assert (endpoint.active, left["waiting"]) == (0, 0)
        await until(lambda: not endpoint.pool.statistics()["dialling"])
        left = endpoint.pool.statistics()
        assert left["connections"] == left["idle"] <= 3
        counts = environment.connections_to("inbound")
        assert counts.active == left["connections"]
        assert len(app.requests) > 50
        assert [t for t in asyncio.all_tasks() if "_dial" in repr(t) or "_greet" in repr(t)] == []


# In steps: several processes obey together, or nobody ---------------------------------------------


async def test_prepared_and_discarded(mesh: Mesh, app: Origin) -> None:
    """Nothing has changed, and the new port is nobody's."""
    one, two = free_port(), free_port()
    mesh.adopt(snapshot(app.port, listener(one)))
    before = mesh.snapshot
    prepared = mesh.prepare(snapshot(app.port, listener(one), listener(two, "more")))
    mesh.discard(prepared)
    assert mesh.snapshot is before
    assert (await get(one)).status == 200
    with pytest.raises(ConnectionRefusedError):
        await get(two)


async def test_handed_over_and_refused(mesh: Mesh, environment: Environment, app: Origin) -> None:
    """A socket of another process survives a snapshot that cannot be obeyed, for the next one."""
    one, taken = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    environment.sockets.hand(one, handed := listen(one))
    others = listen(taken)
    with pytest.raises(ContractError, match="in use"):
        mesh.adopt(snapshot(app.port, listener(one[1]), listener(taken[1], "more")))
    others[0].close()
    mesh.adopt(snapshot(app.port, listener(one[1])))
    assert mesh.sockets == {one: handed}
    assert (await get(one[1])).status == 200


async def test_held_back_until_opened(mesh: Mesh, app: Origin) -> None:
    """Whoever connects waits in the queue; a listener that is gone again leaves nobody there."""
    one, two = free_port(), free_port()
    mesh.hold()
    mesh.adopt(snapshot(app.port, listener(one), listener(two, "more")))
    mesh.adopt(snapshot(app.port, listener(one)))
    async with connect(one) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
        with pytest.raises(ConnectionRefusedError):
            await get(two)
        assert mesh.connections == 0
        mesh.open()
        assert (await client.response()).status == 200


SESSION = SessionPersistenceSpec(name="shop")


def trust(secret: str) -> tuple[TrustSpec, ...]:
    return (TrustSpec(trust_domain="test.mesh", roots=(), session_secret=secret),)


async def test_sessions_need_a_secret(mesh: Mesh) -> None:
    """Of a cluster or a rule: without one no proxy could tell its tokens from made-up ones."""
    rule = RouteSpec(name="all", backends=(BackendSpec(cluster="catalog"),), session=SESSION)
    for more, where in (
        ({"clusters": (ClusterSpec(name="catalog", session=SESSION),)}, "cluster/catalog session"),
        (
            {"virtual_hosts": (VirtualHostSpec(name="catalog", routes=(rule,)),)},
            "virtual_host/catalog routes[0].session",
        ),
    ):
        with pytest.raises(ContractError) as caught:
            mesh.adopt(snapshot(1, **more))
        assert caught.value.path == where
        assert "session_secret" in caught.value.reason
        mesh.adopt(snapshot(1, **more, trust=trust("5e" * 32)))


async def test_tokens_outlive_updates(mesh: Mesh, environment: Environment) -> None:
    """They are made anew only with another secret."""
    seen = []
    for port, secret in ((1, ""), (1, "5e" * 32), (2, "5e" * 32), (2, "6e" * 32)):
        mesh.adopt(snapshot(port, trust=trust(secret)))
        seen.append(environment.tokens)
    none, first, same, other = seen
    assert none is None
    assert first is not None
    assert same is first
    assert other is not first


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"trust": trust("secret")}, "trust/test.mesh session_secret"),
        (
            {
                "clusters": (
                    ClusterSpec(
                        name="catalog",
                        balancing=LoadBalancingSpec(
                            algorithm="maglev", hash_keys=(HashKeySpec(source="query"),)
                        ),
                    ),
                )
            },
            "cluster/catalog balancing.hash_keys[0].name",
        ),
        (
            {"clusters": (ClusterSpec(name="catalog", retry=RetrySpec(backoff=2, max_backoff=1)),)},
            "cluster/catalog retry.backoff",
        ),
    ],
)
async def test_policies_that_cannot_be_obeyed(mesh: Mesh, more: dict[str, Any], path: str) -> None:
    """Is refused whole, with the place of the error."""
    mesh.adopt(snapshot(1))
    before = mesh.snapshot
    with pytest.raises(ContractError) as caught:
        mesh.adopt(snapshot(1, **more))
    assert caught.value.path == path
    assert mesh.snapshot is before


def trusting(*revoked: str, domain: str = "test.mesh") -> tuple[TrustSpec, ...]:
    return (TrustSpec(trust_domain=domain, roots=(), revoked=revoked),)


async def test_revoked_servers_are_not_chosen(mesh: Mesh, environment: Environment) -> None:
    """Who can prove nothing but what is denied gets no request; a list of another mesh denies nobody."""
    good, bad = (f"spiffe://test.mesh/ns/default/sa/{name}" for name in ("good", "bad"))
    endpoints = tuple(
        EndpointSpec(address="127.0.0.1", port=port, identities=identities)
        for port, identities in enumerate([(good,), (bad,), (good, bad), ()], 1)
    )
    before = snapshot(1, endpoints=(EndpointsSpec(cluster="catalog", endpoints=endpoints),))

    def ports(snapshot: Snapshot) -> list[int]:
        mesh.adopt(snapshot)
        return [endpoint.spec.port for endpoint in mesh.clusters["catalog"].endpoints]

    assert ports(before) == [1, 2, 3, 4]
    assert ports(structs.replace(before, trust=trusting(bad))) == [1, 3, 4]
    assert environment.revoked == {bad}
    assert ports(structs.replace(before, trust=trusting(bad, domain="other"))) == [1, 2, 3, 4]
    assert environment.revoked == set()


async def test_who_has_only_revoked_servers_says_so(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    """With the identities; as long as one can be called, or none was revoked, it is what it was."""
    caplog.set_level("INFO", "meshproxy")
    good, bad = (f"spiffe://test.mesh/ns/default/sa/{name}" for name in ("good", "bad"))

    def why(*identities: str, revoked: tuple[str, ...]) -> tuple[str, str]:
        endpoints = tuple(
            EndpointSpec(address="127.0.0.1", port=port, identities=(one,))
            for port, one in enumerate(identities, 1)
        )
        groups = (EndpointsSpec(cluster="catalog", endpoints=endpoints),)
        mesh.adopt(snapshot(1, endpoints=groups, trust=trusting(*revoked)))
        cluster = mesh.clusters["catalog"]
        return cluster.refusal(cluster.requests)[:2]

    assert why(bad, bad, revoked=(bad,)) == ("identity-revoked", bad)
    assert mesh.clusters["catalog"].statistics()["revoked"] == (bad,)
    assert why(good, bad, revoked=(bad, good)) == ("identity-revoked", f"{bad}, {good}")
    assert why(good, bad, revoked=(bad,)) == ("no-healthy-endpoint", "")
    assert why(bad, revoked=()) == ("no-healthy-endpoint", "")
    assert "revoked" not in mesh.clusters["catalog"].statistics()
    said = [one.message for one in caplog.records if one.name == "meshproxy.upstream"]
    assert said == [
        f"catalog: cannot be called: {bad} is revoked",
        "catalog: is not cut off any more",
    ]


async def test_those_who_are_denied_are_cut_off_when_that_is_new(
    mesh: Mesh,
) -> None:
    """Not again with each snapshot, and not when somebody is forgiven."""
    port = free_port()
    mesh.adopt(snapshot(1, listener(port)))
    expelled: list[str] = []
    door = mesh.listeners["door"]

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(door, name)

        def expel(self) -> None:
            expelled.append("listener")

    mesh.listeners["door"] = Watched()  # type: ignore[assignment]
    denying = snapshot(1, listener(port), trust=trusting("spiffe://test.mesh/ns/a/sa/b"))
    mesh.adopt(denying)
    assert expelled == ["listener"]
    mesh.adopt(structs.replace(denying, virtual_hosts=denying.virtual_hosts))
    mesh.adopt(snapshot(1, listener(port), trust=trusting()))
    assert expelled == ["listener"]
