import gc
import socket
from collections.abc import Callable

import pytest

from meshproxy.contract.resources import DestinationSpec
from meshproxy.contract.wire import ContractError
from meshproxy.downstream import captured as module
from meshproxy.downstream.captured import REMEMBERED, Captured, Unknown, places
from meshproxy.downstream.original_destination import Address
from meshproxy.routing.table import Authorities
from meshproxy.upstream.passthrough import PassThrough
from tests.helpers.environment import Environment

SHOP = DestinationSpec(
    name="shop", direction="outbound", addresses=("10.0.0.1", "FD00:0::1"), port=80
)
ANY = DestinationSpec(name="any", direction="outbound", port=80)
PEER = ("127.0.0.1", 50_000)


@pytest.fixture
async def captured() -> Captured:
    environment = Environment()

    def pass_through(address: Address) -> PassThrough:
        return PassThrough("outbound", environment, address)

    made = Captured("outbound", environment, pass_through)
    made.obey([(SHOP, None, None), (ANY, None, None)], Authorities([]))
    return made


@pytest.fixture
def meant_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[Address | None], socket.socket]:
    """What the kernel would say of the next connection."""

    def say(address: Address | None) -> socket.socket:
        monkeypatch.setattr(module, "original_destination", lambda _sock: address)
        return socket.socket()

    return say


async def test_address_and_port_then_the_port(captured: Captured) -> None:
    """The most specific of what is known; addresses are compared however they were written."""
    shop = captured.find(("10.0.0.1", 80))
    assert shop is not None
    assert captured.find(("fd00::1", 80)) is shop
    anything = captured.find(("10.0.0.2", 80))
    assert anything not in (None, shop)
    assert captured.find(("10.0.0.1", 81)) is None


async def test_what_stays_is_the_same(captured: Captured) -> None:
    """Open connections belong to a destination, and follow what it is told."""
    shop = captured.find(("10.0.0.1", 80))
    moved = DestinationSpec(
        name="shop", direction="outbound", addresses=("10.0.0.9",), port=80, protocol="http"
    )
    captured.obey([(moved, None, None)], Authorities([]))
    assert captured.find(("10.0.0.9", 80)) is shop
    assert captured.find(("10.0.0.1", 80)) is None
    assert shop is not None
    assert shop.protocol == "http"


async def test_what_comes_back_is_the_same(captured: Captured) -> None:
    """
    Its connections have outlived its absence: the policies of its return must reach them.

    Nobody keeps what has no connections.
    """
    shop = captured.find(("10.0.0.1", 80))
    captured.obey([(ANY, None, None)], Authorities([]))
    assert captured.find(("10.0.0.1", 80)) is not shop
    captured.obey([(SHOP, None, None), (ANY, None, None)], Authorities([]))
    assert captured.find(("10.0.0.1", 80)) is shop
    del shop
    captured.obey([], Authorities([]))
    gc.collect()
    assert not captured._gone


async def test_what_is_unknown_passes_or_does_not(
    captured: Captured, meant_for: Callable[[Address | None], socket.socket]
) -> None:
    """Byte by byte to where it was meant to go, or not at all."""
    with meant_for(("192.0.2.7", 443)) as sock:
        passage = captured.meant(sock, PEER, passing=True)
        assert isinstance(passage, Unknown)
        assert passage.opaque
        assert captured.meant(sock, PEER, passing=True) is passage
        assert captured.meant(sock, PEER, passing=False) is None
    with meant_for(("10.0.0.1", 80)) as sock:
        shop = captured.meant(sock, PEER, passing=True)
        assert shop is captured.meant(sock, PEER, passing=False)
        assert not isinstance(shop, Unknown)


async def test_who_wanted_to_come_here_has_nowhere_to_go(
    captured: Captured, meant_for: Callable[[Address | None], socket.socket]
) -> None:
    """To pass on what was not redirected would be to pass it to ourselves."""
    with meant_for(None) as sock:
        assert captured.meant(sock, PEER, passing=True) is None


async def test_a_connection_of_our_own_is_refused(
    captured: Captured,
    meant_for: Callable[[Address | None], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first ones are all looked at, later ones now and then: of an endless chain, some link is."""
    with meant_for(("10.0.0.1", 80)) as sock:
        for _ in range(1000):
            assert captured.meant(sock, PEER, passing=True) is not None
        monkeypatch.setattr(module, "is_ours", lambda _client, _server: True)
        found = [captured.meant(sock, PEER, passing=True) for _ in range(100)]
    assert found.count(None) >= 3
    assert "--proxy-uid" in caplog.text


async def test_unknown_addresses_are_not_remembered_without_bound(
    captured: Captured, meant_for: Callable[[Address | None], socket.socket]
) -> None:
    """A client may call any number of them."""
    for number in range(REMEMBERED + 100):
        with meant_for((f"192.0.{number // 256}.{number % 256}", 443)) as sock:
            captured.meant(sock, PEER, passing=True)
    assert len(captured._unknown) == REMEMBERED


def test_an_address_that_is_none() -> None:
    """Refused with its place; a name is not looked up."""
    assert places(ANY) == [(None, 80)]
    assert places(SHOP) == [("10.0.0.1", 80), ("fd00::1", 80)]
    wrong = DestinationSpec(name="x", direction="inbound", addresses=("10.0.0.1", "shop"), port=1)
    with pytest.raises(ContractError) as error:
        places(wrong)
    assert (error.value.path, error.value.reason) == (
        "destination/x addresses[1]", "expected an IP address, got 'shop'",
    )  # fmt: skip
