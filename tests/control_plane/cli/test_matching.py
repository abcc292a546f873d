import pytest

from control_plane.cli.matching import described
from meshproxy.contract.matching import MatchSpec, PathMatchSpec, ValueMatchSpec


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (MatchSpec(), "PathPrefix /"),
        (MatchSpec(path=PathMatchSpec(type="prefix", value="/a")), "PathPrefix /a"),
        (MatchSpec(grpc=True), "gRPC"),
        (MatchSpec(method="GET", path=PathMatchSpec(type="exact", value="/a")), "GET, Exact /a"),
        (
            MatchSpec(
                path=PathMatchSpec(type="regex", value="/a.*"),
                headers=(ValueMatchSpec(name="x", value="1"),),
                query=(ValueMatchSpec(name="q", type="regex", value="2"),),
            ),
            "RegularExpression /a.*, header x=1, query q~2",
        ),
    ],
)
def test_matches_fit_on_a_line(match: MatchSpec, expected: str) -> None:
    """Method, path, headers, query."""
    assert described(match) == expected
