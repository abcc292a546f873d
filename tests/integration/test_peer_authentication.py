"""
From PERMISSIVE to STRICT while everybody calls: who proves nothing is cut off, nobody else notices.

On one machine, where each port has a listener of its own, and with captured connections, where one
listener serves all ports and each of them says for itself what it accepts.
"""

import contextlib
import http.client
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control_plane.cli.local.namespace import socket_in
from tests.helpers.namespaces import needs_namespaces
from tests.helpers.running_mesh import MESH, RunningMesh, shop
from tests.integration.test_netns import DB, GREETER

pytestmark = pytest.mark.integration

FILES = {
    **shop(),
    "mesh.yaml": MESH.replace("STRICT", "PERMISSIVE"),
    "db.yaml": DB,
    "greeter.py": GREETER,
}
POLICY = """
apiVersion: meshproxy.io/v1alpha1
kind: PeerAuthentication
metadata: {name: strict}
spec: {SPEC}
"""
OF_DB = "selector: {matchLabels: {app: db}}"
SPECS = {
    "mesh": "",  # the MeshConfig says it
    "namespace": "mtls: {mode: STRICT}",
    "workload": f"{OF_DB}, mtls: {{mode: STRICT}}",
    "port": f"{OF_DB}, mtls: {{mode: PERMISSIVE}}, portLevelMtls: {{3306: {{mode: STRICT}}}}",
}
SAFE = "STRICT would refuse nobody"


class Shop:
    """A mesh, and two ways to its workloads: as a stranger, and through the door's sidecar."""

    def __init__(self, mesh: RunningMesh, *, captured: bool) -> None:
        self.mesh = mesh
        self._captured = captured

    def stranger(self, name: str, port: int) -> socket.socket:
        """Call a workload's port directly, with nothing to prove."""
        place = self.mesh.placement(name)
        return connected(socket.socket(), place["address"], place["inbound_ports"][str(port)])

    def member(self) -> socket.socket:
        """Call the database as the door's app would."""
        if not self._captured:
            ports = self.mesh.placement("door")["service_ports"]
            return connected(socket.socket(), "127.0.0.1", ports["default/db:3306"])
        placements = json.loads((self.mesh.run / "placements.json").read_text())
        address = placements["service_addresses"]["default/db"][0]
        return connected(socket_in(self.mesh.namespace("door")), address, 3306)

    def page(self) -> tuple[int, str | None]:
        """Ask the catalog as a stranger; return status and refusal."""
        place = self.mesh.placement("catalog-v1")
        connection = http.client.HTTPConnection(
            place["address"], place["inbound_ports"]["8080"], timeout=10
        )
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            return response.status, response.getheader("x-mesh-refusal")
        finally:
            connection.close()


def connected(sock: socket.socket, host: str, port: int) -> socket.socket:
    sock.settimeout(10)
    sock.connect((host, port))
    return sock


def talks(sock: socket.socket) -> bool:
    """Say a line to the database, which says it back."""
    sock.sendall(b"hello\n")
    return sock.recv(100) == b"hello\n"


def is_over(sock: socket.socket) -> bool:
    """Wait for the end of a connection."""
    try:
        return sock.recv(100) == b""
    except ConnectionResetError:
        return True


@pytest.fixture(
    scope="module", params=["listeners", pytest.param("captured", marks=needs_namespaces)]
)
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    captured = request.param == "captured"
    if captured and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    directory: Path = tmp_path_factory.mktemp("mesh")
    with RunningMesh(directory, FILES, *(["--netns"] if captured else [])) as mesh:
        yield Shop(mesh, captured=captured)


def until_ok(running: Shop, condition: Callable[[], bool], what: str) -> None:
    running.mesh.until(condition, what)


@pytest.mark.parametrize("scope", SPECS)
def test_strict_arrives(running: Shop, scope: str) -> None:
    """By mesh, namespace, workload or port: plaintext ends, at once where it is opaque; mutual TLS goes on."""
    mesh = running.mesh
    until_ok(running, lambda: running.page() == (200, None), "PERMISSIVE")
    with contextlib.ExitStack() as stack:
        member = stack.enter_context(running.member())
        assert member.recv(100) == b"welcome\n"
        stranger = stack.enter_context(running.stranger("db", 3306))
        assert stranger.recv(100) == b"welcome\n"
        assert talks(stranger)
        assert talks(member)

        told = mesh.meshctl("plaintext", "db", "--window", "100ms", "-o", "json")
        assert told.returncode == 1
        [client] = [one for one in json.loads(told.stdout)["clients"] if one["open"]]
        assert (client["workload"], client["port"], client["open"]) == ("default/db", "3306", 1)

        if scope == "mesh":
            mesh.write("mesh.yaml", MESH)
        else:
            mesh.write("peers.yaml", POLICY.replace("{SPEC}", f"{{{SPECS[scope]}}}"))
        assert is_over(stranger)
        assert talks(member)
        with running.stranger("db", 3306) as late:
            late.sendall(b"hello\n")  # under STRICT, who says nothing has ten seconds
            assert is_over(late)
        with running.member() as another:
            assert another.recv(100) == b"welcome\n"
        told = mesh.meshctl("plaintext", "db", "--window", "100ms")
        assert (told.returncode, SAFE in told.stdout) == (0, True)
        if scope in ("mesh", "namespace"):
            until_ok(running, lambda: running.page() == (403, "mtls-required"), "STRICT")
        else:
            assert running.page() == (200, None)  # of the others nothing was said
        if scope == "mesh":
            mesh.write("mesh.yaml", FILES["mesh.yaml"])
        else:
            (mesh.config / "peers.yaml").unlink()

        def accepted() -> bool:
            with running.stranger("db", 3306) as again:
                return again.recv(100) == b"welcome\n"

        until_ok(running, accepted, "PERMISSIVE again")
        assert talks(member)
