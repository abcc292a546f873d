"""Which sockets are told not to pace, and that the kernel does as they are told."""

import socket
from pathlib import Path

import pytest

from meshproxy.congestion import options_at, unpaced
from meshproxy.tunnel import set_options

RENO = ((socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno"),)


@pytest.mark.parametrize(
    ("default", "options"),
    [("bbr", RENO), ("bbr2", RENO), ("cubic", ()), ("reno", ()), ("dctcp", ()), ("", ())],
)
def test_only_what_paces_is_replaced(tmp_path: Path, default: str, options: object) -> None:
    """Linux's own default does not: there nothing is asked for."""
    said = tmp_path / "tcp_congestion_control"
    said.write_text(f"{default}\n")
    assert unpaced(said) == options


def test_a_kernel_that_says_nothing_is_left_alone(tmp_path: Path) -> None:
    """Not Linux, or a sandbox without /proc."""
    assert unpaced(tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("address", "within"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("fd00::127", False),
        ("1270.example", False),
        ("127.example.org", False),
        ("", False),
    ],
)
def test_only_the_loopback_is_within(address: str, within: bool) -> None:
    """What is bound to any address hears others, too."""
    assert options_at(address, RENO) == (RENO if within else ())


def test_what_a_listener_is_told_its_connections_inherit() -> None:
    """And a connection that stands can still be told."""

    def algorithm(one: socket.socket) -> bytes:
        return one.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        set_options(listening.fileno(), RENO)
        with socket.create_connection(listening.getsockname()) as client:
            accepted, _ = listening.accept()
            with accepted:
                assert algorithm(accepted) == b"reno"
            set_options(client.fileno(), RENO)
            assert algorithm(client) == b"reno"
