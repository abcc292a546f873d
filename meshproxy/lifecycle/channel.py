"""
Messages, and open sockets, between two processes of ours on one machine.

A message is a msgspec Struct in JSON behind its length; descriptors ride on the header (SCM_RIGHTS
in the words of unix(7)).  The kernel says who is at the other end (SO_PEERCRED), so nobody has to
prove anything: another user is not listened to.
"""

import array
import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from meshproxy.contract import wire

T = TypeVar("T")

DESCRIPTORS = 200
"""Descriptors that one message may carry; the kernel's own limit is 253 (SCM_MAX_FD)."""

LARGEST = 64 << 20
"""Bytes of a message; a snapshot of thousands of services fits many times over."""

_HEADER = struct.Struct(">I")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class ChannelError(Exception):
    """The other process is gone, or says what nobody understands."""


class Channel:
    """
    One end of a connection between two processes.

    Attributes:
        pid: Of the process at the other end.
        uid: The user it runs as.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid, self.uid, _ = _CREDENTIALS.unpack(credentials)

    async def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """
        Raises:
            ChannelError: The other process is gone.
        """
        data = wire.encode(message)
        try:
            await self._send_header(_HEADER.pack(len(data)), descriptors)
            await self._loop.sock_sendall(self._socket, data)
        except OSError as error:
            raise ChannelError(f"the other process is gone: {error.strerror}") from None

    async def receive(self, kind: Any) -> tuple[Any, list[socket.socket]]:
        """
        Return the next message and the sockets that came with it.

        Raises:
            ChannelError: The other process is gone, or said something else.
        """
        sockets: list[socket.socket] = []
        try:
            header = await self._receive_header(sockets)
            (length,) = _HEADER.unpack(header)
            if length > LARGEST:
                raise ChannelError(f"a message of {length} bytes, expected at most {LARGEST}")
            data = await self._receive_exactly(length)
            return wire.decode(data, kind), sockets
        except (OSError, wire.ContractError, ChannelError) as error:
            for sock in sockets:
                sock.close()
            if isinstance(error, ChannelError):
                raise
            raise ChannelError(str(error)) from None

    def close(self) -> None:
        self._socket.close()

    # Bytes and descriptors ------------------------------------------------------------------------

    async def _send_header(self, header: bytes, descriptors: Sequence[int]) -> None:
        rights = array.array("i", descriptors)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        while True:
            try:
                sent = self._socket.sendmsg([header], control)
            except BlockingIOError:
                await self._until(self._loop.add_writer, self._loop.remove_writer)
            else:
                await self._loop.sock_sendall(self._socket, header[sent:])
                return

    async def _receive_header(self, sockets: list[socket.socket]) -> bytes:
        header = b""
        room = socket.CMSG_SPACE(DESCRIPTORS * array.array("i").itemsize)
        while len(header) < _HEADER.size:
            try:
                data, control, _, _ = self._socket.recvmsg(
                    _HEADER.size - len(header), room, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                await self._until(self._loop.add_reader, self._loop.remove_reader)
                continue
            for level, kind, rights in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    sockets.extend(_sockets(rights))
            if not data:
                raise ChannelError("the other process is gone")
            header += data
        return header

    async def _receive_exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = await self._loop.sock_recv(self._socket, min(length - len(data), 1 << 18))
            if not part:
                raise ChannelError("the other process is gone")
            data += part
        return bytes(data)

    async def _until(self, add: Callable[..., None], remove: Callable[[int], bool | None]) -> None:
        ready = self._loop.create_future()
        descriptor = self._socket.fileno()
        add(descriptor, _settle, ready)
        try:
            await ready
        finally:
            remove(descriptor)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _sockets(rights: bytes) -> list[socket.socket]:
    descriptors = array.array("i")
    descriptors.frombytes(rights[: len(rights) - len(rights) % descriptors.itemsize])
    found = []
    for descriptor in descriptors:
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError:  # not a socket: nothing that we would have asked for
            os.close(descriptor)
            continue
        sock.setblocking(False)
        found.append(sock)
    return found
