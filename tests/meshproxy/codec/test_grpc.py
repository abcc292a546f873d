"""What tells a gRPC call from other requests."""

import pytest

from meshproxy.codec.grpc import is_grpc
from meshproxy.message import field


@pytest.mark.parametrize(
    ("method", "content_type", "expected"),
    [
        (b"POST", b"application/grpc", True),
        (b"POST", b"application/grpc+proto", True),
        (b"POST", b"application/grpc-web-text", True),
        (b"POST", b"application/json", False),
        (b"POST", None, False),
        (b"GET", b"application/grpc", False),
    ],
)
def test_a_call_is_a_post_of_grpcs_content_type(
    method: bytes, content_type: bytes | None, expected: bool
) -> None:
    """gRPC over HTTP/2: "Method → POST", "Content-Type → application/grpc…"."""
    fields = [field(b"x", b"y")]
    if content_type is not None:
        fields.append(field(b"Content-Type", content_type))
    assert is_grpc(method, fields) is expected
