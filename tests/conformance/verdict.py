"""What a client made of a proxy's answer to some bytes: the verdict, in the words of the vectors."""

import asyncio
import contextlib
from dataclasses import dataclass, field

from meshproxy.refusal import refusal

PROBE = b"GET /probe HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n"
"""Follows each vector: answered, the connection was still in step; not answered, it was closed."""

PATIENCE = 10.0


@dataclass
class Verdict:
    """
    Attributes:
        answers: `status`, or `status code` where the proxy itself has answered.
        alive: The probe behind it was answered.
        torn: The last answer stopped in the middle.
        first: The head of the first answer.
    """

    answers: list[str] = field(default_factory=list)
    alive: bool = False
    torn: bool = False
    first: str = ""

    def __str__(self) -> str:
        words = list(self.answers)
        if self.torn:
            words.append("torn")
        elif not words and not self.alive:
            words.append("closed")
        elif words and self.alive == _ends(words[-1]):
            words.append("open" if self.alive else "closed")
        return ", ".join(words)


def _ends(answer: str) -> bool:
    """Say whether a connection cannot go on after this answer: it was to something that is no HTTP."""
    _, _, code = answer.partition(" ")
    return bool(code) and refusal(code).flag == "DPE" and code != "not-implemented"


async def ask(port: int, data: bytes, *, probe: bool = True, patience: float = PATIENCE) -> Verdict:
    """Send these bytes on a connection of their own and read what comes back, to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    received = b""
    try:
        writer.write(data + (PROBE if probe else b""))
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(patience):
                if not probe:
                    await writer.drain()
                    writer.write_eof()
                while more := await reader.read(1 << 20):
                    received += more
    finally:
        writer.transport.abort()
    return read(received)


def read(received: bytes) -> Verdict:
    """Cut what a server has sent on one connection into answers."""
    verdict = Verdict()
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        parts = head.split(b"\r\n")[0].split(b" ")
        if not end or not head.startswith(b"HTTP/1.") or len(parts) < 2:
            verdict.torn = True
            break
        if parts[1][:1] == b"1" and parts[1] != b"101":
            received = rest
            continue
        verdict.first = verdict.first or head.decode("latin-1")
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        if parts[1] in (b"204", b"304"):
            fields = {
                b"x-mesh-refusal": fields.get(b"x-mesh-refusal", b""),
                b"content-length": b"0",
            }
        body, received, whole = _body(fields, rest)
        if body == b"/probe":
            verdict.alive = True
            break
        code = fields.get(b"x-mesh-refusal", b"")
        verdict.answers.append(b" ".join((parts[1], code)).strip().decode("latin-1"))
        if not whole:
            verdict.torn = True
            break
    return verdict


def _body(fields: dict[bytes, bytes], rest: bytes) -> tuple[bytes, bytes, bool]:
    """Return the body, what follows it, and whether the body is whole."""
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = b""
        while True:
            line, end, rest = rest.partition(b"\r\n")
            if not end:
                return body, b"", False
            size = int(line.split(b";")[0], 16)
            if not size:
                while line:
                    line, end, rest = rest.partition(b"\r\n")
                    if not end:
                        return body, b"", False
                return body, rest, True
            if len(rest) < size + 2:
                return body + rest, b"", False
            body, rest = body + rest[:size], rest[size + 2 :]
    if b"content-length" in fields:
        length = int(fields[b"content-length"])
        return rest[:length], rest[length:], len(rest) >= length
    if fields.get(b"connection", b"").lower() == b"close":
        return rest, b"", True
    return b"", rest, True
