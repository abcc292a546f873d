"""The configurations of the peers: what the programs themselves think of them, and what is in them."""

import http.client
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bench import armed
from bench.peers import Running, Side, haproxy, nghttpx, nginx, ours, start_pair
from bench.peers.envoy import Envoy, Json
from bench.peers.envoy_armed import EnvoyArmed
from bench.process import StartError
from bench.programs import MissingError, find
from bench.site import A, B, Identity, Service, Site, nginx_app

SERVICES = (
    Service("web", "http1", app=18001, entry=18011, between=18021),
    Service("grpc", "http2", app=18002, entry=18012, between=18022),
    Service("tcp", "tcp", app=18003, entry=18013, between=18023),
)
SIDES: tuple[Side, ...] = ("a", "b", "single")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def judged(program: str, *arguments: str) -> None:
    """Let a program look at a configuration; skip where it is not installed."""
    try:
        command = [find(program), *arguments]
    except MissingError as error:
        pytest.skip(str(error))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("peer", [Envoy(), EnvoyArmed()], ids=lambda peer: peer.name)
@pytest.mark.parametrize("side", ["a", "b"])
def test_envoy_takes_it(site: Site, tmp_path: Path, side: Side, peer: Envoy) -> None:
    """Envoy's own check finds nothing."""
    path = tmp_path / "envoy.json"
    identity = site.a if side == "a" else site.b
    path.write_text(json.dumps(peer.config(side, SERVICES, identity, site.root, 18031)))
    judged("envoy", "--mode", "validate", "-c", str(path))


@pytest.mark.parametrize("side", SIDES)
def test_haproxy_takes_it(site: Site, tmp_path: Path, side: Side) -> None:
    """HAProxy's own check finds nothing, not even something to warn of."""
    services = SERVICES if side != "single" else SERVICES[:1]
    for service in services:
        haproxy.routes_file(tmp_path, service).write_text(haproxy.routes(service))
    path = tmp_path / "haproxy.cfg"
    identity = site.b if side == "b" else site.a
    path.write_text(haproxy.config(side, services, identity, site.root, tmp_path, 18031))
    judged("haproxy", "-c", "-dW", "-f", str(path))


@pytest.mark.parametrize("text", [nginx.config(SERVICES[:1]), nginx_app(18001, 18002, 18003)])
def test_nginx_takes_it(tmp_path: Path, text: str) -> None:
    """nginx's own check finds nothing, in the single hop and in the app behind all."""
    (tmp_path / "nginx.conf").write_text(text)
    judged("nginx", "-t", "-q", "-p", str(tmp_path), "-c", "nginx.conf")


@pytest.mark.parametrize("peer", [Envoy(), EnvoyArmed()], ids=lambda peer: peer.name)
def test_both_sides_check_who_the_other_is(site: Site, peer: Envoy) -> None:
    """Envoy's A wants B's SPIFFE ID of the server, B that of A, and a certificate at all."""
    a = json.dumps(peer.config("a", SERVICES, site.a, site.root, 1))
    b = json.dumps(peer.config("b", SERVICES, site.b, site.root, 1))
    assert f'"exact": "{B}"' in a
    assert f'"exact": "{A}"' in b
    assert '"require_client_certificate": true' in b
    assert b.count('"disable_stateless_session_resumption": true') == 3 * len(SERVICES)


def test_each_has_fifty_routes_and_three_endpoints(site: Site, tmp_path: Path) -> None:
    """10 hosts x 5 prefixes, and the same servers, for everybody."""
    web = SERVICES[:1]
    snapshot = ours.config("a", web, site.root_pem)
    assert sum(len(host.routes) for host in snapshot.virtual_hosts) == 50
    assert [len(one.endpoints) for one in snapshot.endpoints] == [3]
    routes = json.dumps(Envoy().config("a", web, site.a, site.root, 1))
    assert routes.count('"path_separated_prefix"') == 50
    assert routes.count('"endpoint"') == 3
    assert len(haproxy.routes(web[0]).splitlines()) == 50
    text = haproxy.config("a", web, site.a, site.root, tmp_path, 1)
    assert text.count("\n    server ") == 3
    assert nginx.config(web).count("proxy_pass") == 50
    lines = nghttpx.config(web).splitlines()
    assert [line.count("/team-") for line in lines if ";web-" in line] == [50, 50, 50]


def test_ours_has_both_sides_of_mutual_tls(site: Site) -> None:
    """A dials with mutual TLS and names B's identity, B takes nothing else; a single hop has none."""
    a = ours.config("a", SERVICES, site.root_pem)
    assert all(cluster.mtls for cluster in a.clusters)
    assert {one.identities for each in a.endpoints for one in each.endpoints} == {(B,)}
    b = ours.config("b", SERVICES, site.root_pem)
    assert {listener.mtls for listener in b.listeners} == {"strict"}
    assert len(b.listeners) == 3 * len(SERVICES)
    single = ours.config("single", SERVICES[:1], site.root_pem)
    assert not any(cluster.mtls for cluster in single.clusters)


def test_ours_is_asked_for_by_the_same_caller_as_envoy(site: Site) -> None:
    """Armed, B lets in A alone, as Envoy's B does; with nothing armed, whom mutual TLS lets in."""
    hosts = ours.config("b", SERVICES, site.root_pem).virtual_hosts
    assert {host.authorization for host in hosts} == {armed.b_host(A)["authorization"]}
    bare = ours.config("b", SERVICES, site.root_pem, everything=False).virtual_hosts
    assert {host.authorization for host in bare} == {()}
    assert f'"exact": "{A}"' in json.dumps(Envoy().config("b", SERVICES, site.b, site.root, 1))


# What Envoy with everything armed does ------------------------------------------------------------


class Adjustable(EnvoyArmed):
    """Shares of requests can be changed while it runs."""

    def config(
        self, side: Side, services: Sequence[Service], identity: Identity, root: Path, admin: int
    ) -> Json:
        whole = super().config(side, services, identity, root, admin)
        return whole | {"layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]}}


class Admin:
    """The admin pages of one side."""

    def __init__(self, folder: Path, name: str) -> None:
        bootstrap = json.loads((folder / f"{name}.json").read_text())
        self._port = bootstrap["admin"]["address"]["socket_address"]["port_value"]

    def stat(self, name: str) -> int:
        for line in self._said("GET", f"/stats?filter=^{name}$").splitlines():
            return int(line.rpartition(": ")[2])
        raise AssertionError(f"{name} is not counted")

    def set(self, key: str, percent: int) -> None:
        assert self._said("POST", f"/runtime_modify?{key}={percent}") == "OK\n"

    def _said(self, method: str, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline


def asked(running: Running) -> http.client.HTTPResponse:
    """Return the answer to one request, and see that it is a good one."""
    web = running.services["web"]
    connection = http.client.HTTPConnection("127.0.0.1", web.entry, timeout=10)
    connection.request("GET", web.path(100), headers={"Host": web.host})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 200
    return answer


@pytest.mark.integration
def test_what_is_armed_at_envoy_sees_every_request(tmp_path: Path) -> None:
    """By its own figures: bucket of the caller, concurrency, mirror and abort."""
    try:
        find("envoy"), find("nginx")
    except MissingError as error:
        pytest.skip(str(error))
    with Site(tmp_path) as site:
        site.start_apps()
        running = start_pair(Adjustable(), site, "pair")
        a, b = (Admin(tmp_path / "pair", f"pair-{side}") for side in "ab")
        passed = "each.http_local_rate_limit.ok"

        # Many more than the bucket for who has no identity holds (1).
        before = b.stat(passed)
        for _ in range(60):
            answer = asked(running)
        assert b.stat(passed) == before + 60
        [limit] = armed.B_ROUTE["rate_limits"]
        assert answer.getheader("x-ratelimit-limit") == str(limit.burst)
        concurrency = "http.web.adaptive_concurrency.gradient_controller"
        # It wants 50 requests for a look, at each of B's three addresses.
        calm = f"{concurrency}.min_rtt_calculation_active"
        until(lambda: asked(running).status == 200 and b.stat(calm) == 0)
        assert b.stat(f"{concurrency}.concurrency_limit") >= armed.B_CLUSTER["shedding"].min_limit
        assert b.stat(f"{concurrency}.rq_blocked") == 0

        assert a.stat("http.web.fault.aborts_injected") == 0
        a.set("mirror", 100)
        before = b.stat(passed)
        asked(running)
        until(lambda: b.stat(passed) == before + 2)
        a.set("mirror", 0)
        a.set("fault.http.abort.abort_percent", 100)
        asked(running)
        assert a.stat("http.web.fault.aborts_injected") == 1
        assert b.stat(passed) == before + 2


def test_a_peer_that_cannot_start_shows_its_log(site: Site, tmp_path: Path) -> None:
    """The error that the program has printed is in ours."""
    try:
        command = [find("haproxy"), "-db", "-f", str(tmp_path / "bad.cfg")]
    except MissingError as error:
        pytest.skip(str(error))
    (tmp_path / "bad.cfg").write_text("frontend web\n    unknown thing\n")
    with site.processes:
        process = site.processes.start("haproxy", command, tmp_path)
        with pytest.raises(StartError, match="unknown keyword 'unknown'"):
            process.until("it is ready", lambda: False)
