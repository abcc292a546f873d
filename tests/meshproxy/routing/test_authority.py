import pytest

from meshproxy.routing.authority import normalized


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        (b"catalog", b"catalog:80"),
        (b"Catalog.Default:80", b"catalog.default:80"),
        (b"catalog.:8080", b"catalog:8080"),
        (b"catalog.", b"catalog:80"),
        (b"catalog:", b"catalog:80"),
        (b"catalog:080", b"catalog:80"),
        (b"127.0.0.1:9", b"127.0.0.1:9"),
        (b"[::1]", b"[::1]:80"),
        (b"[0:0::1]:8080", b"[::1]:8080"),
        (b"[::A]", b"[::a]:80"),
        (b"", None),
        (b".", None),
        (b"..", None),
        (b"catalog..", None),
        (b".catalog", None),
        (b"a..b:80", None),
        (b":80", None),
        (b"a:b", None),
        (b"a:123456", None),
        (b"a:-1", None),
        (b"::1", None),
        (b"[::1", None),
        (b"[::1]x", None),
        (b"[\xff]", None),
        (b"[x]", None),
        (b"*", None),
    ],
)
def test_an_authority_has_one_spelling(authority: bytes, expected: bytes | None) -> None:
    """Case, the root's dot and the default port make no difference; nonsense is no authority."""
    assert normalized(authority) == expected
