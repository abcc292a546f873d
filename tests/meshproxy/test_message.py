import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.message import (
    HOP_BY_HOP,
    RequestHead,
    ResponseHead,
    field,
    is_mesh_field,
    value_of,
)


def test_a_field_keeps_the_spelling_of_its_line() -> None:
    """The name is compared in lower case and sent as it was written."""
    assert field(b"X-Request-ID", b"7") == (b"x-request-id", b"7", b"X-Request-ID: 7")


def test_the_value_of_an_absent_field_is_none() -> None:
    """Absent and empty are different things."""
    assert value_of([], b"a") is None
    assert value_of([field(b"a", b"")], b"a") == b""


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([b"A", b"a", b"b"]), st.sampled_from([b"", b"1", b"2"]))))
def test_repeated_fields_are_joined_in_order(lines: list[tuple[bytes, bytes]]) -> None:
    """RFC 9110 section 5.3: who looks at the first line only can be deceived by the second."""
    fields = [field(name, value) for name, value in lines]
    values = [value for name, value in lines if name in (b"A", b"a")]
    assert value_of(fields, b"a") == (b", ".join(values) if values else None)


@pytest.mark.parametrize(
    "name",
    [
        b"x-mesh-peer",
        b"x-mesh-",
        b"x_mesh_peer",
        b"x-mesh_peer",
        b"x-forwarded-client-cert",
        b"x_forwarded_client_cert",
        b"l5d-client-id",
    ],
)
def test_fields_that_only_the_mesh_may_set(name: bytes) -> None:
    """Also spelt with underscores, which CGI-style servers fold into hyphens."""
    assert is_mesh_field(name)


@pytest.mark.parametrize(
    "name", [b"x-meshed", b"x-request-id", b"mesh", b"x-forwarded-for", b"forwarded"]
)
def test_fields_that_anybody_may_set(name: bytes) -> None:
    """A name that only looks similar is the application's."""
    assert not is_mesh_field(name)


def test_hop_by_hop_names_are_in_lower_case() -> None:
    """They are compared with the first element of a field."""
    assert all(name == name.lower() for name in HOP_BY_HOP)


def test_a_head_starts_with_nothing_special() -> None:
    """What a codec does not set is not there: no body, no upgrade, no word of the mesh."""
    request = RequestHead(b"GET", b"catalog:80", b"/a?b", [])
    assert request.scheme == b"http"
    assert request.length is None
    assert request.mesh_fields is None
    assert not request.expect_continue
    assert request.upgrade is None
    response = ResponseHead(204, [])
    assert response.length is None
    assert response.reason == b""
    assert response.upgrade is None


def test_heads_show_what_they_are() -> None:
    """Without fields: those may hold secrets, and a repr ends up in logs."""
    secret = [field(b"authorization", b"hunter2")]
    assert repr(RequestHead(b"GET", b"a", b"/", secret)) == "<RequestHead b'GET' b'a' b'/'>"
    assert repr(ResponseHead(200, secret)) == "<ResponseHead 200>"
