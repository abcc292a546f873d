import msgspec
import pytest

from meshproxy.contract.authentication import ClaimHeaderSpec, JwtSpec, TokenHeaderSpec


def test_issuers_survive_the_wire() -> None:
    """With all that can be said of one."""
    spec = JwtSpec(
        name="shop/users",
        issuer="https://id.example",
        audiences=("shop",),
        keys='{"keys": []}',
        headers=(TokenHeaderSpec(name="x-token", prefix="Token "),),
        params=("access_token",),
        forward=True,
        claim_headers=(ClaimHeaderSpec(header="x-user", claim="sub"),),
        leeway=5_000,
    )
    assert msgspec.json.decode(msgspec.json.encode(spec), type=JwtSpec) == spec


def test_an_issuer_without_keys_is_none() -> None:
    """Nobody could prove anything."""
    with pytest.raises(msgspec.ValidationError, match="keys"):
        msgspec.convert({"name": "a", "issuer": "b"}, JwtSpec)
