"""The demo while it runs; whole runs are in tests/integration."""

from typing import Any

import pytest

from control_plane.cli.demonstration import compact, is_the_storefront

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


def test_the_table_fits_a_terminal() -> None:
    """80 columns are enough for every column, and for the end of the identity."""
    record: dict[str, Any] = {
        "source": "default/storefront",
        "destination": "default/catalog-v1",
        "version": "v1",
        "requests_per_second": 135.2,
        "success_percent": 99.98,
        "p50_ms": 21.7,
        "p99_ms": 131.4,
        "identity": "spiffe://demo.mesh/ns/default/sa/storefront",
    }

    header, row = compact([record], 80).splitlines()

    assert len(row) == 80
    assert row.startswith("storefront  catalog-v1   v1 ")
    assert row.endswith("sa/storefront")
    assert header.endswith("IDENTITY")
    assert compact([record], 200).endswith(record["identity"])
