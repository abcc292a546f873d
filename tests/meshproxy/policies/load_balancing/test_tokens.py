"""Tokens: whose they are, what they give away, when they end."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.contract.wire import ContractError
from meshproxy.policies.load_balancing.tokens import Tokens, secret_of

SECRET = bytes(range(32))
RULE = "HTTPRoute/default/shop/0"


class Clock:
    time = 1_700_000_000.5

    def __call__(self) -> float:
        return self.time


def tokens(secret: bytes = SECRET) -> tuple[Tokens, Clock]:
    clock = Clock()
    return Tokens(secret, clock), clock


def test_every_proxy_of_the_mesh_understands_it() -> None:
    """Also after a restart: nothing but the secret is needed."""
    ours, theirs = tokens()[0], tokens()[0]
    token = ours.make(ours.id_of("10.0.0.1:80"), RULE)
    assert theirs.read(token, RULE, None) == theirs.id_of("10.0.0.1:80")
    assert theirs.id_of("10.0.0.1:80") != theirs.id_of("10.0.0.2:80")


def test_without_the_secret_it_says_nothing() -> None:
    """Who tries all addresses finds none that fits: the hash is a keyed one."""
    ours, foreign = tokens()[0], tokens(b"x" * 32)[0]
    token = ours.make(ours.id_of("10.0.0.1:80"), RULE)
    assert b"10.0.0.1" not in urlsafe_b64decode(token + b"=")
    assert foreign.id_of("10.0.0.1:80") != ours.id_of("10.0.0.1:80")
    assert foreign.read(token, RULE, None) is None


def test_a_client_cannot_make_one() -> None:
    """Another endpoint, another time or another rule, put under the same seal, are not believed."""
    ours, _ = tokens()
    token = ours.make(ours.id_of("10.0.0.1:80"), RULE)
    plain = urlsafe_b64decode(token + b"=")
    for place in range(len(plain)):
        forged = bytearray(plain)
        forged[place] ^= 1
        assert ours.read(urlsafe_b64encode(forged).rstrip(b"="), RULE, None) is None
    assert ours.read(token, "HTTPRoute/default/shop/1", None) is None


@given(st.binary(max_size=40))
def test_anything_else_is_no_token(data: bytes) -> None:
    """Clients may send what they like."""
    assert tokens()[0].read(data, RULE, None) is None


def test_a_token_ends() -> None:
    """When its time has passed by the wall clock, and not before."""
    ours, clock = tokens()
    named = ours.id_of("10.0.0.1:80")
    token = ours.make(named, RULE)
    clock.time += 59
    assert ours.read(token, RULE, 60.0) == named
    clock.time += 1
    assert ours.read(token, RULE, 60.0) is None
    assert ours.read(token, RULE, None) == named


@pytest.mark.parametrize("text", ["", "00" * 15, "00" * 65, "no hexadecimal digits" * 3])
def test_a_secret_that_is_none(text: str) -> None:
    """Too short, too long, or not hexadecimal."""
    with pytest.raises(ContractError, match=r"^trust/a: expected 32 to 128 hexadecimal digits"):
        secret_of(text, "trust/a")


def test_a_secret() -> None:
    """As bytes."""
    assert secret_of("00ff" * 8, "") == b"\0\xff" * 8
