import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.downstream.original_destination import (
    canonical,
    local_address,
    original_destination,
    parse_ipv4,
    parse_ipv6,
)
from tests.helpers.ports import free_port

PORTS = st.integers(0, 65535)


def test_sockaddr_in_as_the_kernel_writes_it() -> None:
    """Family in the machine's order, port and address in the network's; 16 bytes."""
    written = bytes.fromhex("0200 1f90 0a01 0203 0000000000000000")
    assert parse_ipv4(written) == ("10.1.2.3", 8080)


def test_sockaddr_in6_as_the_kernel_writes_it() -> None:
    """Flow label before the address, scope after it; 28 bytes."""
    written = bytes.fromhex("0a00 0050 00000000 fd000000000000000000000000000007 00000000")
    assert parse_ipv6(written) == ("fd00::7", 80)


@given(st.ip_addresses(v=4), PORTS)
def test_every_ipv4_address(address: IPv4Address, port: int) -> None:
    """What goes into the structure comes out of it."""
    written = b"\x02\x00" + port.to_bytes(2, "big") + address.packed + bytes(8)
    assert parse_ipv4(written) == (str(address), port)


@given(st.ip_addresses(v=6), PORTS)
def test_every_ipv6_address(address: IPv6Address, port: int) -> None:
    """The same for IPv6, where an IPv4-mapped address is the IPv4 address."""
    written = b"\x0a\x00" + port.to_bytes(2, "big") + bytes(4) + address.packed + bytes(4)
    host, found = parse_ipv6(written)
    assert found == port
    if address.ipv4_mapped is not None:
        assert host == str(address.ipv4_mapped)
    else:
        assert IPv6Address(host) == address
        assert host == canonical(str(address))


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("FD00:0:0::1", "fd00::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
    ],
)
def test_one_form_of_each_address(given: str, same: str) -> None:
    """However an address is written, it is compared in one form."""
    assert canonical(given) == same


def test_what_is_no_address() -> None:
    """A name is not looked up."""
    with pytest.raises(OSError):
        canonical("catalog")


@pytest.mark.parametrize(
    ("family", "bound", "called"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
)
def test_who_was_not_redirected_has_no_destination(
    family: socket.AddressFamily, bound: str, called: str
) -> None:
    """A client that called the listener itself wanted to come here, whatever the kernel tracks."""
    port = free_port()
    listener = socket.create_server((bound, port), family=family, dualstack_ipv6=bound == "::")
    with listener, socket.create_connection((called, port)):
        accepted, _ = listener.accept()
        with accepted:
            assert local_address(accepted) == (called, port)
            assert original_destination(accepted) is None
