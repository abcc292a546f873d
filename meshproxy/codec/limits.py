"""
How much of a message the HTTP/1.1 codec reads before it gives up.

Everything that must be complete before it can be judged has to be held in memory, so everything
that is held needs a bound.  RFC 9110 section 5.4 leaves the numbers to us; next to each one stand
those of servers that have been attacked for longer than ours.
"""

from typing import Final, NamedTuple


class Limits(NamedTuple):
    """
    Bounds on one message; bytes, unless it says otherwise.

    Attributes:
        head: Start line and fields with their line ends.  Envoy 60 KiB, nginx 32 KiB, Node.js
            and HAProxy 16 KiB, Go 1 MiB.  Cookies and tokens of large companies reach 20 KiB.
        target: Request target.  RFC 9112 section 3 recommends at least 8000 for the request line;
            nginx and Apache take 8 KiB, Node.js up to its 16 KiB head.
        fields: Number of field lines.  Envoy and Apache 100, HAProxy 101.
        extension: Extensions of one chunk.  We drop them and nobody sends them in earnest;
            Node.js allows 16 KiB, but in one whole body.
        extensions: Extensions of all chunks of one body.  Go and Node.js 16 KiB.
        trailers: The trailer section.  HAProxy and Node.js count it as a head: 16 KiB.
        informational: Number of 1xx heads before one response.  Go stopped at 5 for years;
            a server that says ``102 Processing`` every few seconds needs more.
    """

    head: int = 65536
    target: int = 16384
    fields: int = 128
    extension: int = 256
    extensions: int = 16384
    trailers: int = 8192
    informational: int = 32


LIMITS: Final = Limits()
"""The bounds that hold unless a test wants smaller ones."""
