"""
An app that remembers what it was asked and always answers the same: in HTTP/1.1 and in HTTP/2.

A client that talks to it directly and then through the mesh must be told the same, and it must have
been told the same; what a proxy may change is listed in `travelling`.
"""

import hashlib
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.helpers.http2_peers import Stream, http2_app
from tests.helpers.origin import Conversation, origin

Pairs = list[tuple[str, str]]

BODY = random.Random(7).randbytes(300_000)

# Several lines of one name, a list in one line, no value, bytes above ASCII, spelling.
FIELDS: Pairs = [
    ("X-Many", "one"),
    ("X-CamelCase", "Kept"),
    ("X-Many", "two, three"),
    ("X-Empty", ""),
    ("x-UPPER-lower", 'quoted "value"; q=0.5'),
]
ANSWER: Pairs = [
    ("X-Many", "one"),
    ("Set-Cookie", "a=1; Path=/"),
    ("X-CamelCase", "Kept"),
    ("X-Many", "two, three"),
    ("X-Empty", ""),
    ("Set-Cookie", "b=2; HttpOnly"),
    ("X-Beyond-Ascii", "caf\xe9"),
    ("Content-Type", "application/octet-stream"),
]

ABOUT_THE_CONNECTION = {"connection", "keep-alive", "te", "transfer-encoding", "host"}
ADDED = {"x-forwarded-client-cert"}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def travelling(fields: Iterable[tuple[str, str]], *, spelling: bool) -> Pairs:
    """
    Return what must arrive unchanged, and in this order; without `spelling` in lower case.

    Content-Length frames the message: each hop says it anew, behind the others.
    """
    kept = [
        (name if spelling else name.lower(), value)
        for name, value in fields
        if name.lower() not in ABOUT_THE_CONNECTION | ADDED and not name.startswith(":")
    ]
    lengths = [value for name, value in kept if name.lower() == "content-length"]
    others = [field for field in kept if field[0].lower() != "content-length"]
    return others + [("content-length", value) for value in lengths]


@dataclass
class Message:
    """
    A request as the app has seen it, or a response as the client has.

    Attributes:
        what: Method and path, or the status.
        body: The hash of its bytes; None where the client does not tell.
        trailers: None where the client does not tell.
    """

    what: str
    fields: Pairs
    body: str | None
    trailers: Pairs | None

    def travelled(self, *, spelling: bool) -> "Message":
        """Return what of it must be the same with and without a mesh."""
        trailers = self.trailers
        if trailers is not None:
            trailers = travelling(trailers, spelling=spelling)
        fields = travelling(self.fields, spelling=spelling)
        return Message(self.what, fields, self.body, trailers)


@dataclass
class Witness:
    """
    Attributes:
        ports: Of its two apps, by protocol.
        seen: The requests, in order.
    """

    ports: dict[str, int] = field(default_factory=dict)
    seen: list[Message] = field(default_factory=list)

    async def http1(self, conversation: Conversation) -> None:
        body = await conversation.body()
        method, path = conversation.request_line.decode().split(" ")[:2]
        lines = conversation.head.decode("latin-1").split("\r\n")[1:-2]
        trailers = _pairs(conversation.trailers.decode("latin-1").split("\r\n")[:-1])
        self.seen.append(Message(f"{method} {path}", _pairs(lines), sha(body), trailers))
        status, fields, answer, ending = respond(method, path, body)
        if answer:
            fields = [*fields, ("Transfer-Encoding", "chunked")]
        head = f"HTTP/1.1 {status} Whatever\r\n{_lines(fields)}\r\n".encode()
        if not answer:
            return await conversation.send(head)
        await conversation.send(head)
        for start in range(0, len(answer), 70_000):
            part = answer[start : start + 70_000]
            await conversation.send(b"%x\r\n%b\r\n" % (len(part), part))
        return await conversation.send(b"0\r\n" + _lines(ending).encode() + b"\r\n")

    async def http2(self, stream: Stream) -> None:
        request = await stream.message()
        if request.reset is not None:
            return
        method, path = request.header(":method") or "", request.header(":path") or ""
        self.seen.append(
            Message(f"{method} {path}", request.headers, sha(request.body), request.trailers)
        )
        status, fields, answer, ending = respond(method, path, request.body)
        head = [(":status", status), *((name.lower(), value) for name, value in fields)]
        stream.head(head, end=not answer)
        if answer:
            await stream.body(answer, end=False)
            stream.head([(name.lower(), value) for name, value in ending], end=True)


def respond(method: str, path: str, body: bytes) -> tuple[str, Pairs, bytes, Pairs]:
    """Return the status, the fields, the body and the trailers of the answer."""
    if path.startswith("/none"):
        return "204", ANSWER, b"", []
    if path.startswith("/cached"):
        return "304", [*ANSWER, ("ETag", '"v1"')], b"", []
    if method == "HEAD":
        return "203", [*ANSWER, ("Content-Length", "300000")], b"", []
    return "203", [*ANSWER, ("Trailer", "X-Sum")], body or BODY, [("X-Sum", sha(body))]


def _pairs(lines: list[str]) -> Pairs:
    return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]


def _lines(fields: Pairs) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in fields)


@asynccontextmanager
async def witness() -> AsyncIterator[Witness]:
    it = Witness()
    async with origin(it.http1) as first, http2_app(it.http2) as second:
        it.ports = {"http1": first.port, "http2": second.port}
        yield it
