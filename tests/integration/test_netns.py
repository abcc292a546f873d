"""`meshctl up --netns`: unmodified clients in namespaces of their own, captured, all of it mutual TLS."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from control_plane.cli.local import namespace
from control_plane.cli.local.network import mark_of
from tests.helpers.namespaces import needs_namespaces
from tests.helpers.running_mesh import (
    MESH,
    MESHCTL,
    ROOT,
    RunningMesh,
    route,
    service,
    shop,
    workload,
)

pytestmark = [
    pytest.mark.integration,
    needs_namespaces,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]

# Speaks first, as MySQL and SMTP servers do, then says each line back.
GREETER = """
import os, socketserver

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"welcome\\n")
        for line in self.rfile:
            self.wfile.write(line)

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
DB = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{port: 3306, appProtocol: mysql}]}
---
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: db, labels: {app: db}}
spec:
  ports: [{port: 3306}]
  run: {command: ["$(MESH_PYTHON)", "greeter.py"]}
"""
TALK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as connection:
    lines = connection.makefile()
    print(lines.readline(), end="")
    connection.sendall(b"hello\\n")
    connection.shutdown(socket.SHUT_WR)
    print(lines.read(), end="")
"""
TRY = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as connection:
        connection.sendall(sys.argv[3].encode())
        print(connection.makefile().read())
except OSError as error:
    print(type(error).__name__)
"""
FILES = {**shop(), "db.yaml": DB, "greeter.py": GREETER}


def identity(name: str) -> str:
    return f"URI=spiffe://test.mesh/ns/default/sa/{name}"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    with RunningMesh(tmp_path_factory.mktemp("mesh"), FILES, "--netns") as running:
        yield running


def curl(mesh: RunningMesh, name: str, *words: str) -> str:
    done = mesh.inside(name, "curl", "-sS", "-m", "10", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def says(mesh: RunningMesh, name: str, url: str) -> str:
    """Return what is answered, if anything is."""
    return mesh.inside(name, "curl", "-sS", "-m", "10", url).stdout


def kill(process: psutil.Process) -> None:
    """End it, and wait until it has let go of its ports."""
    process.kill()
    process.wait(10)


def attempt(mesh: RunningMesh, name: str, host: str, port: int, text: str = "") -> str:
    return mesh.inside(name, sys.executable, "-c", TRY, host, str(port), text).stdout.strip()


def addresses(mesh: RunningMesh, service: str) -> list[str]:
    placements = json.loads((mesh.run / "placements.json").read_text())
    found: list[str] = placements["service_addresses"][f"default/{service}"]
    return found


def test_services_by_name_and_by_address(mesh: RunningMesh) -> None:
    """Any client, without a word about proxies; the callee knows who calls, so it was mutual TLS."""
    answer = f"catalog-v1 called by By=spiffe://test.mesh/ns/default/sa/catalog;{identity('door')}"
    four, six = addresses(mesh, "catalog")
    for host in (
        "catalog", "catalog.default", "catalog.default.svc", "catalog.default.svc.cluster.local",
        four, f"[{six}]",
    ):  # fmt: skip
        assert curl(mesh, "door", f"http://{host}/") == answer
    assert curl(mesh, "door", "-4", "http://catalog:80/") == answer
    assert curl(mesh, "door", "-6", "http://catalog:80/") == answer
    # From beside an app, which is a client like any other.
    assert curl(mesh, "catalog-v2", "http://catalog/").endswith(identity("catalog"))


def test_the_address_decides_and_not_the_host(mesh: RunningMesh) -> None:
    """Whatever a client says: the service whose address it called answers."""
    [four, _] = addresses(mesh, "catalog-v2")
    said = curl(mesh, "door", "-H", "Host: catalog-v1", f"http://{four}/")
    assert said.startswith("catalog-v2 called by")


def test_one_instance_by_its_own_address(mesh: RunningMesh) -> None:
    """No route decides, and it is mutual TLS all the same."""
    place = mesh.placement("catalog-v2")
    for host in (place["address"], f"[{place['ipv6']}]"):
        said = curl(mesh, "door", f"http://{host}:8080/")
        assert said.startswith("catalog-v2 called by")
        assert said.endswith(identity("door"))


def test_an_app_calls_its_own_service_through_the_mesh(mesh: RunningMesh) -> None:
    """The sidecar chooses its own pod, and the call comes in as anybody's would."""
    said = curl(mesh, "catalog-v1", "http://catalog-v1/")
    assert (
        said
        == f"catalog-v1 called by By=spiffe://test.mesh/ns/default/sa/catalog;{identity('catalog')}"
    )


def test_an_app_calls_itself_without_the_mesh(mesh: RunningMesh) -> None:
    """Over the loopback nobody is between."""
    assert curl(mesh, "catalog-v1", "http://localhost:8080/") == "catalog-v1 called by nobody"


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_a_server_that_speaks_first(mesh: RunningMesh, family: int) -> None:
    """Opaque TCP, with half-close, by address in both families."""
    done = mesh.inside("door", sys.executable, "-c", TALK, addresses(mesh, "db")[family], "3306")
    assert done.stdout == "welcome\nhello\n", done.stderr


def test_what_is_unknown_passes(mesh: RunningMesh) -> None:
    """ALLOW_ANY: an address that is no service's is reached as it is, and counted as that."""
    port = json.loads((mesh.run / "control-plane.json").read_text())["discovery"]
    assert (
        curl(
            mesh,
            "door",
            "-k",
            "-o",
            "/dev/null",
            "-w",
            "%{ssl_verify_result}",
            f"https://{port['address']}:{port['port']}/",
        )
        != ""
    )
    stat = mesh.inside(
        "door", "curl", "-s", f"http://{mesh.placement('door')['address']}:15000/metrics"
    ).stdout
    assert 'destination="passthrough"' in stat
    # No way out of the mesh: said at once.
    assert attempt(mesh, "door", "203.0.113.9", 80) == "ConnectionResetError"


def test_plaintext_from_a_stranger_is_refused(mesh: RunningMesh) -> None:
    """STRICT: who comes from beside the mesh has no certificate; undeclared ports have no policy."""
    place = mesh.placement("catalog-v1")
    answer = subprocess.run(
        ["curl", "-s", "-m", "10", "-i", f"http://{place['address']}:8080/"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "x-mesh-refusal: mtls-required" in answer.stdout
    for port in (22, 15001, 15006):
        done = subprocess.run(
            [sys.executable, "-c", TRY, place["address"], str(port), "GET / HTTP/1.1\r\n\r\n"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "200" not in done.stdout


def test_capturing_ports_do_not_loop(mesh: RunningMesh) -> None:
    """A connection that wanted to go to the sidecar itself is refused, and costs nothing after it."""
    place = mesh.placement("door")
    for host, port in (
        ("127.0.0.1", 15001),
        ("::1", 15001),
        ("127.0.0.1", 15006),
        (place["address"], 15006),
    ):
        assert attempt(mesh, "door", host, port, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") != ""
    sidecar = mesh.sidecar("door")
    mesh.until(lambda: sidecar.num_fds() < 64, "connections to be closed")


def test_neighbours_do_not_see_the_administration(mesh: RunningMesh) -> None:
    """It is for the app beside it and for meshctl."""
    place = mesh.placement("catalog-v1")
    assert attempt(mesh, "door", place["address"], 15000) == "ConnectionResetError"
    assert "ready" in curl(mesh, "catalog-v1", f"http://{place['address']}:15000/healthz/ready")


def test_meshctl_knows_it_all(mesh: RunningMesh) -> None:
    """The other verbs work as without namespaces."""
    assert mesh.meshctl("status").returncode == 0
    assert "SYNCED" in mesh.meshctl("proxies").stdout
    assert addresses(mesh, "catalog")[0] in mesh.meshctl("config", "door", "destinations").stdout
    urls = ["http://catalog/"] * 1000
    load = ["ip", "netns", "exec", mesh.namespace("door"), "curl", "-s", "--rate", "100/s", *urls]
    with subprocess.Popen(load, stdout=subprocess.DEVNULL) as calling:
        try:
            mesh.until(
                lambda: identity("door").removeprefix("URI=") in mesh.meshctl("stat").stdout,
                "the edge to be seen",
            )
        finally:
            calling.kill()


def test_sidecars_and_apps_are_who_they_should_be(mesh: RunningMesh) -> None:
    """The sidecar is user 1337, its state is its own; the app is not, or it would not be captured."""
    assert mesh.sidecar("door").uids().effective == 1337
    state = mesh.run / "state" / "test.mesh" / "default" / "door"
    assert (state.stat().st_uid, state.stat().st_mode & 0o777) == (1337, 0o700)
    assert mesh.find("greeter.py").uids().effective != 1337


def test_edits_reach_namespaces(mesh: RunningMesh) -> None:
    """A new service has a name and an address at once, a new workload a namespace; both can go."""
    mesh.write(
        "late.yaml", f"{service('late', {'app': 'late'})}---{workload('late', {'app': 'late'})}"
    )
    mesh.until(
        lambda: says(mesh, "door", "http://late/").startswith("late called by"), "the new service"
    )
    assert mesh.namespace("late") in namespace.named(mark_of(mesh.run))
    (mesh.config / "late.yaml").unlink()
    mesh.until(lambda: mesh.namespace("late") not in namespace.named(mark_of(mesh.run)), "its end")
    mesh.write("route.yaml", route(0, 100))
    mesh.until(lambda: says(mesh, "door", "http://catalog/").startswith("catalog-v2"), "the route")
    mesh.write("route.yaml", route(100, 0))


def test_a_dead_sidecar_fails_closed(mesh: RunningMesh) -> None:
    """While it is away nothing leaves and nothing comes in, by whatever address."""
    closed = ("ConnectionRefusedError", "ConnectionResetError")
    place = mesh.placement("catalog-v1")
    kill(mesh.sidecar("door"))
    mesh.process.send_signal(signal.SIGSTOP)  # or there is another before all has been tried
    try:
        assert attempt(mesh, "door", place["address"], 8080) in closed
        assert attempt(mesh, "door", place["ipv6"], 8080) in closed
        assert attempt(mesh, "door", addresses(mesh, "catalog")[0], 80) in closed
    finally:
        mesh.process.send_signal(signal.SIGCONT)
    mesh.until(lambda: says(mesh, "door", "http://catalog/").startswith("catalog-v1"), "a new one")
    kill(mesh.sidecar("catalog-v1"))
    with pytest.raises(ConnectionRefusedError), socket.socket() as stranger:
        stranger.connect((place["address"], 8080))
    mesh.until(lambda: says(mesh, "door", "http://catalog/").startswith("catalog-v1"), "a new one")


def gone(mesh: RunningMesh) -> bool:
    left = namespace.named(mark_of(mesh.run))
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    return (
        not left
        and mark_of(mesh.run) not in links
        and not list(namespace.FILES.glob(f"{mark_of(mesh.run)}*"))
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left(tmp_path: Path, number: int) -> None:
    """However `meshctl` ends, its processes, namespaces, cables and files end too."""
    files = {
        "mesh.yaml": MESH,
        "all.yaml": f"{service('a', {'app': 'a'})}---{workload('a', {'app': 'a'})}",
    }
    with RunningMesh(tmp_path, files, "--netns") as mesh:
        family = mesh.family()
        assert not gone(mesh)
        mesh.process.send_signal(number)
        mesh.process.wait(30)
    deadline = time.monotonic() + 30
    while not gone(mesh) or any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family
    ):
        assert time.monotonic() < deadline, "something is left"
        time.sleep(0.05)


def test_the_demo_runs_as_it_is(tmp_path: Path) -> None:
    """The very files of the demo; each app calls the others by name, without a proxy to know of."""
    command = [*MESHCTL, "up", "-f", "configs/demo", "--netns", "--run-dir", str(tmp_path / "run")]
    running = subprocess.Popen(
        [*command, "--for", "600s"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout is not None
        for line in running.stdout:
            if "http://storefront/" in line:
                break
        done = subprocess.run(
            line.split()[1:], capture_output=True, text=True, check=False, timeout=30
        )
        assert '"stars"' in done.stdout, done.stderr
    finally:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)
