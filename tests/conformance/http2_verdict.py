"""What a client of HTTP/2 made of a proxy's answer to some frames, in the words of the vectors."""

import asyncio
import contextlib
from dataclasses import dataclass

from tests.conformance.vectors.frames import PREFACE, Writer
from tests.helpers.http2 import Heard, Wire

PROBE = 200_001
"""Stream of the request that shows whether the connection still works."""

PATIENCE = 10.0


@dataclass
class Verdict:
    """
    Attributes:
        answer: What became of stream 1: `status`, `status code`, `reset` or `nothing`.
        gone: GOAWAY came, or the end of the connection.
    """

    answer: str = "nothing"
    gone: bool = False
    first: str = ""
    probed: bool = False

    def __str__(self) -> str:
        return "goaway" if self.gone else self.answer

    def hear(self, heard: Heard) -> None:
        if heard.kind == "GoAway":
            self.gone = True
        elif heard.stream == PROBE:
            self.probed = self.probed or heard.ended
        elif heard.stream == 1 and heard.kind == "RstStream":
            if self.answer == "nothing":
                self.answer = "reset"
        elif heard.stream == 1 and heard.headers is not None and self.answer == "nothing":
            headers = dict(heard.headers)
            if headers[":status"][0] != "1":
                code = headers.get("x-mesh-refusal", "")
                self.answer = f"{headers[':status']} {code}".strip()
                self.first = "\r\n" + "\r\n".join(f"{n}: {v}" for n, v in heard.headers)

    @property
    def complete(self) -> bool:
        return self.gone or self.probed


async def ask(port: int, frames: object) -> Verdict:
    """Send the frames and a request behind them; return what came of it."""
    writing, wire, verdict = Writer(), Wire(), Verdict()
    preface = PREFACE + writing.write("SETTINGS")
    data = await asyncio.to_thread(writing.write, frames)  # floods take a second to be made
    if isinstance(frames, list) and str(frames[0]).startswith("BYTES | "):
        preface = PREFACE  # it is about what comes first
    probe = writing.write(f"HEADERS {PROBE} END_STREAM | GET | :path: /probe")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(preface + data + probe)
        async with asyncio.timeout(PATIENCE):
            while not verdict.complete:
                more = b""
                with contextlib.suppress(ConnectionError):
                    more = await reader.read(1 << 16)
                for heard in wire.hear(more):
                    verdict.hear(heard)
                verdict.gone = verdict.gone or not more
    finally:
        writer.transport.abort()
    return verdict
