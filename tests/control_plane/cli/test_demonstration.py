"""The demo while it runs; whole runs are in tests/integration."""

import pytest

from control_plane.cli.demonstration import is_the_storefront

PAGE = b'{"catalog": "v1", "items": [{"name": "anvil", "stars": 4}]}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (PAGE, True),
        (PAGE.replace(b"4", b"0"), False),
        (PAGE.replace(b'"v1"', b"null"), False),
        (b"{}", False),
        (b"[]", False),
        (b"oops", False),
        (b"\xff", False),
    ],
)
def test_only_a_whole_page_is_the_storefronts(body: bytes, expected: bool) -> None:
    """Both services must have had their say."""
    assert is_the_storefront(body) is expected
