"""What strangers can do to the ports of the control plane: not keep others from them."""

import contextlib
import socket
import ssl
from collections.abc import Iterator

import psutil
import pytest

from tests.integration.test_adversary_files import Plane

pytestmark = pytest.mark.integration

DESCRIPTORS = 512
MANY = 640

SAID = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 7_000,
    "a request, and nothing more": b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a body that does not come": (
        b"POST /api/v1/tokens HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 60000\r\n\r\n"
    ),
    "half a hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """With few descriptors, as many services have."""
    with Plane(tmp_path_factory.mktemp("plane")) as it:
        process = psutil.Process(it.process.pid)
        process.rlimit(psutil.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        yield it


@contextlib.contextmanager
def held(port: int, said: bytes) -> Iterator[None]:
    """Open more connections than the control plane has descriptors."""
    with contextlib.ExitStack() as stack:
        for _ in range(MANY):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(5)
            with contextlib.suppress(OSError):
                sock.connect(("127.0.0.1", port))
                sock.send(said)
        yield


@pytest.mark.parametrize("which", ["discovery", "api"])
def test_many_strangers_keep_nobody_out(plane: Plane, which: str) -> None:
    """Whatever they say, or do not: operators get answers and proxies handshakes, meanwhile."""
    process = psutil.Process(plane.process.pid)
    ports = {
        connection.laddr.port
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    [discovery] = ports - {plane.port}
    for name, said in SAID.items():
        with held(discovery if which == "discovery" else plane.port, said):
            plane.until(lambda: process.num_fds() < DESCRIPTORS * 3 // 4)
            assert plane.status()["build"], name
            anybody = ssl._create_unverified_context()
            with socket.create_connection(("127.0.0.1", discovery), 5) as sock:
                anybody.wrap_socket(sock).close()
