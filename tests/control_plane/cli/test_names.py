"""Names of workloads as people type them."""

import pytest

from control_plane.cli.errors import CommandError
from control_plane.cli.names import qualified, resolved

KNOWN = ("default/catalog-v1", "blue/reviews")


def test_the_default_namespace_need_not_be_typed() -> None:
    """Others do."""
    assert qualified("shop") == "default/shop"
    assert resolved("catalog-v1", KNOWN) == "default/catalog-v1"
    assert resolved("blue/reviews", KNOWN) == "blue/reviews"


@pytest.mark.parametrize(
    ("typed", "known", "expected"),
    [
        ("catlog-v1", KNOWN, r"did you mean default/catalog-v1\?"),
        ("nosuch", ("default/reviews",), "there are default/reviews"),
        ("blue/catalog-v1", KNOWN, "there are blue/reviews, default/catalog-v1"),
        ("xyz", KNOWN, "there are blue/reviews, default/catalog-v1"),
        ("xyz", (), "knows no proxies yet"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    typed: str, known: tuple[str, ...], expected: str
) -> None:
    """The nearest name, or all of them."""
    with pytest.raises(CommandError, match=expected):
        resolved(typed, known)
