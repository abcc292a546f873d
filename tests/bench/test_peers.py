"""The configurations of the peers: what the programs themselves think of them, and what is in them."""

import json
import subprocess
from pathlib import Path

import pytest

from bench.peers import Side, envoy, haproxy, nghttpx, nginx, ours
from bench.process import StartError
from bench.programs import MissingError, find
from bench.site import A, B, Service, Site, nginx_app

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


@pytest.mark.parametrize("side", ["a", "b"])
def test_envoy_takes_it(site: Site, tmp_path: Path, side: Side) -> None:
    """Envoy's own check finds nothing."""
    path = tmp_path / "envoy.json"
    identity = site.a if side == "a" else site.b
    path.write_text(json.dumps(envoy.config(side, SERVICES, identity, site.root, 18031)))
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


@pytest.mark.parametrize("text", [nginx.config(SERVICES[:1]), nginx_app(18001, 18002)])
def test_nginx_takes_it(tmp_path: Path, text: str) -> None:
    """nginx's own check finds nothing, in the single hop and in the app behind all."""
    (tmp_path / "nginx.conf").write_text(text)
    judged("nginx", "-t", "-q", "-p", str(tmp_path), "-c", "nginx.conf")


def test_both_sides_check_who_the_other_is(site: Site) -> None:
    """Envoy's A wants B's SPIFFE ID of the server, B that of A, and a certificate at all."""
    a = json.dumps(envoy.config("a", SERVICES, site.a, site.root, 1))
    b = json.dumps(envoy.config("b", SERVICES, site.b, site.root, 1))
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
    routes = json.dumps(envoy.config("a", web, site.a, site.root, 1))
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
