"""The bounds must hold what real clients send, and fit into each other."""

from meshproxy.codec.limits import LIMITS


def test_limits_admit_what_the_rfc_recommends() -> None:
    """RFC 9112 section 3 recommends 8000 bytes for a request line; a target must fit into a head."""
    assert 8000 <= LIMITS.target < LIMITS.head


def test_extensions_of_one_chunk_fit_into_those_of_a_body() -> None:
    """One chunk alone can never exhaust what a body may have."""
    assert LIMITS.extension <= LIMITS.extensions
