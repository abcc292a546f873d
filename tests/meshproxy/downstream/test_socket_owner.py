import os
import socket
import subprocess
import sys

import pytest

from control_plane.cli.local import launch
from meshproxy.downstream.original_destination import local_address
from meshproxy.downstream.socket_owner import is_ours, owner


@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_connection_of_our_own(family: socket.AddressFamily, address: str) -> None:
    """It is found by its two addresses, in either family, and no other is."""
    with socket.create_server((address, 0), family=family) as server:
        there = local_address(server)
        with socket.create_connection(there) as client:
            here = local_address(client)
            assert owner(here, there) == os.geteuid()
            assert is_ours(here, there)
            assert owner((here[0], 1), there) is None
            assert not is_ours((here[0], 1), there)


def test_what_is_no_address() -> None:
    """This is nobody's."""
    assert owner(("nowhere", 1), ("127.0.0.1", 1)) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_connection_of_somebody_else() -> None:
    """The user is that of the socket, whoever accepted the connection."""
    connect = "import socket, sys; c = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); c.recv(1)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = local_address(server)
        command = [sys.executable, "-I", "-S", launch.__file__, "--user", "1337:1337", "--read-all"]
        child = subprocess.Popen(
            [*command, str(os.getpid()), sys.executable, "-c", connect, str(there[1])]
        )
        accepted, client = server.accept()
        with accepted:
            assert owner(client, there) == 1337
            assert not is_ours(client, there)
        child.wait()
