import pytest

from meshproxy.contract.resources import Direction
from meshproxy.upstream.passthrough import PassThrough
from tests.helpers.environment import Environment


@pytest.mark.parametrize(
    ("direction", "address", "source"),
    [
        ("outbound", ("192.0.2.1", 443), None),
        ("outbound", ("2001:db8::1", 443), None),
        ("inbound", ("10.1.2.3", 7000), ("127.0.0.1", 0)),
        ("inbound", ("fd00::3", 7000), ("::1", 0)),
    ],
)
async def test_the_last_leg_comes_from_the_loopback(
    direction: Direction, address: tuple[str, int], source: tuple[str, int] | None
) -> None:
    """By that the packet filter knows it; what leaves the machine has an address of its own."""
    made = PassThrough(direction, Environment(), address)
    assert (made.endpoint.address, made.endpoint.port) == address
    assert made._source == source


async def test_there_is_one_endpoint_and_it_is_asked_once() -> None:
    """A second attempt at the same address would only let the client wait."""
    made = PassThrough("outbound", Environment(), ("192.0.2.1", 443))
    assert made.pick(None, None) is made
    assert made.pick((made,), None) is None
    assert made.service == "passthrough"
    assert not made.cluster.mtls
