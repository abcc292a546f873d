"""
What gRPC adds to HTTP: a content type of its own (gRPC over HTTP/2, "Requests").

gRPC-Web and its text form begin with the same word, and are the same calls in other frames.
"""

from typing import Final

from meshproxy.message import Fields

CONTENT_TYPE: Final = b"application/grpc"


def is_grpc(method: bytes, fields: Fields) -> bool:
    """Say whether a request is a gRPC call."""
    if method != b"POST":
        return False
    for name, value, _ in fields:
        if name == b"content-type":
            return value.startswith(CONTENT_TYPE)
    return False
