"""Clients that ask once and say what they see, in the words of `Row`."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tests.helpers.client import connect
from tests.helpers.fault_server.connection import reset
from tests.helpers.http2_peers import Message, http2_client

from .row import Lane

Given = Callable[[], Awaitable[None]]
"""Returns when it is time to give up."""


@dataclass(frozen=True)
class Seen:
    """
    Attributes:
        text: What was seen.
        body: Of an answer that came whole.
        fields: Of its head.
    """

    text: str
    body: bytes = b""
    fields: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Request:
    """
    Attributes:
        fields: With `x-id` and `x-fault`.
        keeps: See `Row`.
    """

    method: str
    authority: str
    fields: Mapping[str, str]
    body: bytes = b""
    keeps: str = ""


async def ask(lane: Lane, port: int, requests: list[Request], given_up: Given | None) -> Seen:
    """
    Ask one after the other on one connection; return what is seen of the last.

    Args:
        given_up: The last is not waited for any longer than that; None to wait for it.
    """
    if lane == "http1":
        return await _http1(port, requests, given_up)
    return await _http2(port, requests, given_up, grpc=lane == "grpc")


class Memory:
    """What a client keeps from one answer to the next request."""

    def __init__(self) -> None:
        self._kept: dict[str, str] = {}

    def fields(self, request: Request) -> dict[str, str]:
        """Return the fields of a request, with what is kept."""
        return {**request.fields, **self._kept}

    def learn(self, request: Request, seen: Seen) -> None:
        """Keep what the answer says, if the request is one that does."""
        told = seen.fields or {}
        if request.keeps == "cookie" and "set-cookie" in told:
            self._kept["cookie"] = told["set-cookie"].partition(";")[0]
        elif request.keeps in told:
            self._kept[request.keeps] = told[request.keeps]


async def _patiently(answer: Awaitable[Seen], given_up: Given | None) -> Seen:
    if given_up is None:
        async with asyncio.timeout(20):
            return await answer
    waiting = asyncio.ensure_future(answer)
    await given_up()
    if waiting.done():
        return waiting.result()
    waiting.cancel()
    return Seen("waits")


# HTTP/1.1 -----------------------------------------------------------------------------------------


async def _http1(port: int, requests: list[Request], given_up: Given | None) -> Seen:
    memory = Memory()
    async with connect(port) as client:

        async def exchange(request: Request) -> Seen:
            fields = {
                "Host": request.authority,
                **memory.fields(request),
                "Content-Length": str(len(request.body)),
            }
            lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            head = f"{request.method} / HTTP/1.1\r\n{lines}\r\n".encode()
            with contextlib.suppress(ConnectionError):  # what there is to be heard is heard below
                await client.send(head + request.body)
            seen = await hear_http1(client.reader)
            memory.learn(request, seen)
            return seen

        for request in requests[:-1]:
            seen = await exchange(request)
            assert seen.text.isdecimal(), seen  # an answer of the app
        seen = await _patiently(exchange(requests[-1]), given_up)
        if seen.text == "waits":
            # A polite FIN could be a half-close: who has sent it may still listen.
            reset(client.writer)
        return seen


async def hear_http1(reader: asyncio.StreamReader) -> Seen:
    """Read one answer: whole, torn, or none at all."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return Seen("nothing")
    first, *lines = head.split("\r\n")[:-2]
    pairs = (line.partition(":") for line in lines)
    fields = {name.lower(): value.strip() for name, _, value in pairs}
    try:
        if "content-length" in fields:
            body = await reader.readexactly(int(fields["content-length"]))
        elif fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readuntil(b"\r\n")
        else:
            body = await reader.read()
    except (asyncio.IncompleteReadError, ConnectionError):
        return Seen("torn", fields=fields)
    refusal = fields.get("x-mesh-refusal", "")
    return Seen(f"{first.split()[1]} {refusal}".strip(), body, fields)


# HTTP/2 and gRPC ----------------------------------------------------------------------------------


async def _http2(port: int, requests: list[Request], given_up: Given | None, *, grpc: bool) -> Seen:
    memory = Memory()
    async with http2_client(port) as client:

        async def exchange(request: Request) -> Seen:
            head = [
                (":method", request.method), (":scheme", "http"),
                (":authority", request.authority), (":path", "/test.Test/Do" if grpc else "/"),
                *((name.lower(), value) for name, value in memory.fields(request).items()),
            ]  # fmt: skip
            body = request.body
            if grpc:
                head += [("content-type", "application/grpc"), ("te", "trailers")]
                body = b"\0" + len(body).to_bytes(4, "big") + body
            stream = client.ask(head, end=not body)
            if body:
                sending = asyncio.create_task(stream.body(body))
                try:
                    message = await stream.message()
                finally:
                    sending.cancel()
            else:
                message = await stream.message()
            seen = _of_call(message) if grpc else _of_message(message)
            memory.learn(request, seen)
            return seen

        for request in requests[:-1]:
            seen = await exchange(request)
            assert seen.text.isdecimal(), seen  # an answer of the app
        return await _patiently(exchange(requests[-1]), given_up)


def _of_message(message: Message) -> Seen:
    fields = dict(message.headers)
    if message.reset is not None:
        return Seen(
            "torn", fields=fields
        )  # nobody takes that for an answer, with a head or without
    refusal = message.header("x-mesh-refusal") or ""
    return Seen(f"{message.status} {refusal}".strip(), message.body, fields)


def _of_call(message: Message) -> Seen:
    seen = _of_message(message)
    if message.reset is not None:
        return seen
    if message.status != "200":
        return Seen(f"HTTP {seen.text}", seen.body, seen.fields)
    status = dict(message.trailers).get("grpc-status") or message.header("grpc-status")
    if status is None:
        return Seen("no status", seen.body, seen.fields)
    refusal = message.header("x-mesh-refusal") or ""
    return Seen(f"{status} {refusal}".strip(), message.body[5:], seen.fields)
