import msgspec
import pytest

from meshproxy.contract.matching import IdentityMatchSpec, MatchSpec, PathMatchSpec


def test_empty_conditions_mean_everything() -> None:
    """A rule that says nothing about requests or callers means all of them."""
    assert MatchSpec() == msgspec.convert({}, MatchSpec)
    assert IdentityMatchSpec().principals == ()


def test_kinds_of_paths_are_few() -> None:
    """An unknown kind is an error, never taken for another one."""
    with pytest.raises(msgspec.ValidationError, match="suffix"):
        msgspec.convert({"path": {"type": "suffix", "value": "/"}}, MatchSpec)
    assert PathMatchSpec(type="exact", value="/").value == "/"
