"""One proxy with a static configuration, in the test's own process."""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

from meshproxy.config.bootstrap import Admin, Bootstrap, Static
from meshproxy.contract import wire
from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    TrustSpec,
    VirtualHostSpec,
)
from meshproxy.contract.wire import ContractError
from meshproxy.identity.x509 import CertificateError
from meshproxy.proxy import Proxy
from meshproxy.traffic import Traffic
from tests.helpers.certificates import TestAuthority
from tests.helpers.client import connect, get
from tests.helpers.environment import until
from tests.helpers.origin import Conversation, Origin, hello, origin
from tests.helpers.ports import free_port

IDENTITY = "spiffe://test.mesh/ns/default/sa/storefront"


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """A proxy tunes the collector for its process, which here is that of all tests."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Scene:
    """A proxy between a port and an app; `starting` starts it, and stops it in any case."""

    def __init__(self, directory: Path, app: int, **more: Any) -> None:
        self.port, self.admin = free_port(), free_port()
        route = RouteSpec(name="all", backends=(BackendSpec(cluster="catalog"),))
        self.snapshot = Snapshot(
            **{
                "clusters": (ClusterSpec(name="catalog", service="default/catalog"),),
                "endpoints": (
                    EndpointsSpec(
                        cluster="catalog",
                        endpoints=(EndpointSpec(address="127.0.0.1", port=app, version="v1"),),
                    ),
                ),
                "virtual_hosts": (VirtualHostSpec(name="catalog", routes=(route,)),),
                "listeners": (
                    ListenerSpec(
                        name="door",
                        direction="outbound",
                        address="127.0.0.1",
                        port=self.port,
                        virtual_host="catalog",
                    ),
                ),
                **more,
            }
        )
        self.directory = directory
        self.certificate: tuple[Path, Path] | None = None
        self.drain_seconds = 5.0
        self.proxy: Proxy

    @asynccontextmanager
    async def starting(self) -> AsyncIterator[Proxy]:
        path = self.directory / "snapshot.json"
        path.write_bytes(wire.encode(self.snapshot))
        certificate, key = self.certificate or (None, None)
        self.proxy = Proxy(
            Bootstrap(
                workload="default/storefront",
                identity=IDENTITY,
                state=self.directory / "state",
                admin=Admin(port=self.admin),
                drain_seconds=self.drain_seconds,
                static=Static(snapshot=path, certificate=certificate, key=key),
            )
        )
        try:
            await self.proxy.start()
            yield self.proxy
        finally:
            await self.proxy.stop()
            await until(lambda: self.traffic.mesh.connections == 0)

    @property
    def traffic(self) -> Traffic:
        traffic = self.proxy._traffic
        assert isinstance(traffic, Traffic)
        return traffic

    async def page(self, path: str) -> tuple[int, bytes]:
        response = await get(self.admin, path, "localhost")
        return response.status, response.body


@pytest.fixture
async def app() -> AsyncIterator[Origin]:
    async with origin(hello) as app:
        yield app


async def test_a_worry_is_told_where_readiness_is_asked(tmp_path: Path, app: Origin) -> None:
    """Still 200, because all goes well; the page and the metric say that it will not for long."""
    scene = Scene(tmp_path, app.port)
    async with scene.starting() as proxy:
        certificates = proxy._certificates
        now = time.time()
        certificates.not_after, certificates._obtained = now + 20, now - 80
        certificates.last_error, certificates.failures = "nobody there", 3
        status, body = await scene.page("/healthz/ready")
        assert status == 200
        assert body.startswith(b"ready, degraded: certificate not renewed, it ends in ")
        assert body.endswith(b" s: nobody there\n")
        metrics = (await scene.page("/metrics"))[1]
        assert b"mesh_certificate_renewal_overdue 1.0\n" in metrics
        assert b"mesh_certificate_renewal_failures_total 3.0\n" in metrics
        certificates.last_error = None
        assert await scene.page("/healthz/ready") == (200, b"ready\n")


async def test_a_static_proxy_serves_and_tells(tmp_path: Path, app: Origin) -> None:
    """Traffic flows, and every page says what is so."""
    scene = Scene(tmp_path, app.port)
    async with scene.starting():
        assert await scene.page("/healthz/live") == (200, b"live\n")
        assert await scene.page("/healthz/ready") == (200, b"ready\n")
        for _ in range(3):
            assert (await get(scene.port)).status == 200

        shown = json.loads((await scene.page("/config"))[1])
        assert shown["version"] == wire.version_of(scene.snapshot)
        [cluster] = json.loads((await scene.page("/clusters"))[1])
        assert cluster["endpoints"][0]["address"] == f"127.0.0.1:{app.port}"
        assert cluster["endpoints"][0]["active"] == 0
        assert cluster["endpoints"][0]["idle"] == 1


async def test_metrics_can_be_parsed_and_are_right(tmp_path: Path, app: Origin) -> None:
    """Requests by outcome, refusals, connections, the version in force."""
    route = RouteSpec(name="gone", backends=(BackendSpec(cluster=None),))
    scene = Scene(tmp_path, app.port)
    other = ListenerSpec(
        name="other",
        direction="outbound",
        address="127.0.0.1",
        port=free_port(),
        virtual_host="gone",
    )
    scene.snapshot = Snapshot(
        clusters=scene.snapshot.clusters,
        endpoints=scene.snapshot.endpoints,
        virtual_hosts=(
            *scene.snapshot.virtual_hosts,
            VirtualHostSpec(name="gone", routes=(route,)),
        ),
        listeners=(*scene.snapshot.listeners, other),
    )
    async with scene.starting():
        for _ in range(3):
            await get(scene.port)
        await get(other.port)
        text = (await scene.page("/metrics"))[1].decode()

    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

    def value(name: str, **labels: str) -> float:
        return samples[(name, *sorted(labels.items()))]

    answered = {
        "direction": "outbound", "source": "default/storefront", "destination": "default/catalog",
        "version": "v1", "route": "all",
    }  # fmt: skip
    assert value("mesh_requests_total", **answered, protocol="http", code="200", flag="-") == 3
    assert value("mesh_request_duration_seconds_count", **answered) == 3
    assert value("mesh_refusals_total", direction="outbound", code="unresolved-backend") == 1
    assert value("mesh_connections_opened_total", side="downstream", direction="outbound") == 4
    assert value("mesh_connections_opened_total", side="upstream", direction="inbound") == 1
    assert value("mesh_config_info", version=wire.version_of(scene.snapshot)) == 1
    assert value("mesh_control_plane_connected") == 0


async def test_mutual_tls_needs_a_certificate_before_it_is_ready(
    tmp_path: Path, app: Origin
) -> None:
    """Without one the proxy does not start, or says so, and calls nobody in plaintext."""
    authority = TestAuthority()
    trust = (TrustSpec(trust_domain="test.mesh", roots=(authority.root,)),)
    clusters = (ClusterSpec(name="catalog", mtls=True),)
    scene = Scene(tmp_path, app.port, clusters=clusters, trust=trust)
    with pytest.raises(ContractError, match=r"^cluster/catalog mtls: needs static\.certificate"):
        async with scene.starting():
            pass

    encrypted = scene.snapshot
    scene = Scene(tmp_path, app.port)
    doors = {"listeners": scene.snapshot.listeners}
    async with scene.starting():
        await scene.proxy._adopt(structs.replace(encrypted, **doors))
        assert await scene.page("/healthz/ready") == (503, b"no valid certificate\n")
        assert (await get(scene.port)).header("x-mesh-refusal") == "not-ready"
    assert app.connections == 0

    scene = Scene(tmp_path, app.port, clusters=clusters, trust=trust)
    scene.certificate = authority.issue(IDENTITY, tmp_path, "a")
    async with scene.starting():
        assert (await scene.page("/healthz/ready"))[0] == 200
        text = (await scene.page("/metrics"))[1]
        assert b"mesh_certificate_expiry_timestamp_seconds" in text


async def test_what_cannot_be_served_does_not_start(tmp_path: Path, app: Origin) -> None:
    """A bad snapshot, a certificate of somebody else, a taken admin port: each is a clear error."""
    scene = Scene(tmp_path, app.port, clusters=())
    with pytest.raises(ContractError, match=r"routes\[0\].*catalog|endpoints/catalog"):
        async with scene.starting():
            pass
    assert scene.proxy._metrics.config_refused == 1

    scene = Scene(tmp_path, app.port)
    scene.certificate = TestAuthority().issue("spiffe://test.mesh/ns/x/sa/y", tmp_path, "b")
    with pytest.raises(CertificateError, match="storefront"):
        async with scene.starting():
            pass

    (elsewhere := tmp_path / "elsewhere").mkdir()
    one, two = Scene(tmp_path, app.port), Scene(elsewhere, app.port)
    two.admin = one.admin
    async with one.starting():
        message = (
            rf"^admin\.port: cannot listen on 127\.0\.0\.1:{one.admin}: Address already in use$"
        )
        with pytest.raises(ContractError, match=message):
            async with two.starting():
                pass
        assert (await get(one.port)).status == 200


# Drain and stop -----------------------------------------------------------------------------------


class Slow:
    """An app that answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, conversation: Conversation) -> None:
        await self.go.wait()
        await hello(conversation)


async def test_draining_waits_for_what_runs(tmp_path: Path) -> None:
    """Not ready any more, no new connections, and the end comes with the last answer."""
    slow = Slow()
    async with origin(slow) as app:
        scene = Scene(tmp_path, app.port)
        async with scene.starting() as proxy, connect(scene.port) as client:
            await client.send(b"GET /slow HTTP/1.1\r\nHost: catalog\r\n\r\n")
            await until(lambda: app.requests)
            draining = asyncio.create_task(proxy.drain())
            await asyncio.sleep(0)
            assert await scene.page("/healthz/ready") == (503, b"draining\n")
            with pytest.raises(ConnectionRefusedError):
                await get(scene.port)
            assert not draining.done()
            slow.go.set()
            response = await client.response()
            assert (response.body, response.header("connection")) == (b"/slow 0", "close")
            await draining
            assert not scene.traffic.environment.exchanges


@pytest.mark.parametrize("hurried", [False, True])
async def test_a_drain_has_an_end(
    tmp_path: Path, hurried: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The drain time, or whoever asks a second time; what is cut then is said."""
    async with origin(Slow()) as app:
        scene = Scene(tmp_path, app.port)
        scene.drain_seconds = 60.0 if hurried else 0.1
        async with scene.starting() as proxy, connect(scene.port) as client:
            await client.send(b"GET /slow HTTP/1.1\r\nHost: catalog\r\n\r\n")
            await until(lambda: app.requests)
            draining = asyncio.create_task(proxy.drain())
            if hurried:
                proxy.hurry()
            async with asyncio.timeout(30):
                await draining
            await proxy.stop()
            assert await client.rest() == b""
            await until(lambda: not scene.traffic.environment.exchanges)
    assert "1 requests cut" in caplog.text
