"""What is asked of health, and how it is answered."""

import struct

PATH = "/health"
GRPC_PATH = "/grpc.health.v1.Health/Check"


def grpc_status(*, well: bool) -> bytes:
    """Return the answer of `grpc.health.v1.Health/Check`: SERVING or NOT_SERVING."""
    message = b"\x08\x01" if well else b"\x08\x02"
    return struct.pack(">?I", False, len(message)) + message
