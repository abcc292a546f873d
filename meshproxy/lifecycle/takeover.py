"""
Hot restart: a new process takes over the listening sockets of the one that serves.

    new                                        old
     │  connects to takeover.sock              │  serves
     │ ─── Take ─────────────────────────────▶ │  follows its control plane no more
     │ ◀── Handed, with descriptors ────────── │  (as many messages as it takes,
     │ ─── More ─────────────────────────────▶ │   one asked for after the other)
     │  becomes ready: its own certificate,    │  serves
     │  configuration, workers                 │
     │  accepts                                │  accepts: the same queues, whoever is faster
     │ ─── Serving ──────────────────────────▶ │
     │ ◀── Yours ───────────────────────────── │  has closed its descriptors, drains, ends
     │  opens a takeover.sock of its own

A descriptor that is handed over is the same socket, with the same queue: no connection is refused
or lost, for there is no moment at which nobody listens.  Whatever goes wrong before `Serving`, the
old process goes on as if nothing had happened; the kernel tells it when the new one dies.

What is *not* handed over: connections, counters, certificates, configuration, and what was learnt of
endpoints.  Connections stay with the old process and end there (a drain as on SIGTERM); both
processes read certificate and last snapshot from the same state directory; breakers begin closed
(decision 0024).

The socket lies in the state directory (0700) and is 0600; that the same user is at the other end
is checked on both sides besides.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from meshproxy import __version__, private_file
from meshproxy.contract.spec import Spec
from meshproxy.downstream.sockets import Place

from .channel import DESCRIPTORS, Channel, ChannelError

log = logging.getLogger("meshproxy")

PROTOCOL = 1
"""Both processes must speak the same number; a change that the other could misread raises it."""

ANSWER_WITHIN = 10.0
"""Seconds for an answer that needs no work."""

READY_WITHIN = 60.0
"""Seconds in which the new process must become ready."""

_SOCKET = "takeover.sock"


class TakeoverError(Exception):
    """The process that serves could not be relieved, and goes on; says why in one sentence."""


# What is said ---------------------------------------------------------------------------------


class Take(Spec, frozen=True, kw_only=True, tag="take", tag_field="type"):
    """The first message.  Whatever `protocol` says, these two fields stay as they are."""

    protocol: int = PROTOCOL
    build: str = __version__


class Handed(Spec, frozen=True, kw_only=True, tag="handed", tag_field="type"):
    """
    Attributes:
        places: Where the sockets that came along listen, in the same order.
        more: There are further ones, for who asks.
    """

    places: tuple[Place, ...]
    more: bool


class More(Spec, frozen=True, kw_only=True, tag="more", tag_field="type"):
    """Go on handing over."""


class Serving(Spec, frozen=True, kw_only=True, tag="serving", tag_field="type"):
    """The new process is ready and accepts."""


class Yours(Spec, frozen=True, kw_only=True, tag="yours", tag_field="type"):
    """The old process accepts no more."""


class Refused(Spec, frozen=True, kw_only=True, tag="refused", tag_field="type"):
    """Not now, or not with you."""

    reason: str


# The new process ------------------------------------------------------------------------------


class Predecessor:
    """The process that serves until we do."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __repr__(self) -> str:
        return f"<Predecessor, process {self._channel.pid}>"

    async def sockets(self) -> dict[Place, list[socket.socket]]:
        """
        Ask for everything that it listens on.

        Raises:
            TakeoverError: It refuses, is gone, or does not answer.
        """
        handed: dict[Place, list[socket.socket]] = {}
        message: Take | More = Take()
        while True:
            answer, sockets = await self._ask(message, Handed | Refused)
            if isinstance(answer, Refused):
                raise TakeoverError(f"process {self._channel.pid} serves here: {answer.reason}")
            for place, sock in zip(answer.places, sockets, strict=True):
                handed.setdefault(place, []).append(sock)
            if not answer.more:
                return handed
            message = More()

    async def relieve(self) -> None:
        """
        Tell it that we serve, and wait until it accepts no more.

        Raises:
            TakeoverError: It has grown tired of waiting; it goes on.
        """
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                with contextlib.suppress(ChannelError):  # it may have left a last word
                    await self._channel.send(Serving())
                answer, _ = await self._channel.receive(Yours | Refused)
        except (ChannelError, TimeoutError) as error:
            # It is dead, or hears it when it wakes up: either way the ports are ours.
            why = str(error) or "it does not answer"
            log.warning("took over from process %d without its word: %s", self._channel.pid, why)
        else:
            if isinstance(answer, Refused):
                raise TakeoverError(f"process {self._channel.pid} serves here: {answer.reason}")
            log.info("took over from process %d", self._channel.pid)
        finally:
            self._channel.close()

    def close(self) -> None:
        """Leave it alone: without a word, it goes on."""
        self._channel.close()

    async def _ask(self, message: Spec, kind: object) -> tuple[Any, list[socket.socket]]:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await self._channel.send(message)
                return await self._channel.receive(kind)
        except (ChannelError, TimeoutError) as error:
            why = str(error) or f"no answer within {ANSWER_WITHIN:.0f} s"
            raise TakeoverError(f"process {self._channel.pid} serves here: {why}") from None


async def find(state: Path) -> Predecessor | None:
    """
    Return the process that serves with this state directory, if there is one.

    Raises:
        TakeoverError: There is one that is not ours.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _in(state) as folder:
            sock.connect(f"{folder}/{_SOCKET}")
    except OSError:  # nobody, or somebody who has died without a word
        sock.close()
        return None
    channel = Channel(sock)
    if channel.uid != os.geteuid():
        channel.close()
        raise TakeoverError(
            f"{state / _SOCKET}: process {channel.pid} serves as user {channel.uid},"
            f" and this one is user {os.geteuid()}: both must be the same"
        )
    return Predecessor(channel)


# The old process ------------------------------------------------------------------------------


class Door:
    """
    Where a successor knocks.

    Args:
        state: The state directory.
        sockets: Tells what we listen on.
        on_asked: A successor prepares itself: change nothing.
        on_failed: It has not come to serve: go on.
        on_taken: It serves: accept no more.
    """

    def __init__(
        self,
        state: Path,
        *,
        sockets: Callable[[], Mapping[Place, list[socket.socket]]],
        on_asked: Callable[[], Awaitable[None]],
        on_failed: Callable[[], None],
        on_taken: Callable[[], Awaitable[None]],
    ) -> None:
        self._state = state
        self._sockets = sockets
        self._on_asked = on_asked
        self._on_failed = on_failed
        self._on_taken = on_taken
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._inode = 0
        self._visits: set[asyncio.Task[None]] = set()
        self._busy = ""  # why nobody else may take over

    def open(self) -> None:
        """
        Listen.  Whoever listened there before (and has been relieved, or is dead) no longer does.

        Raises:
            PrivateFileError: The state directory cannot be used.
            OSError: The socket cannot be made.
        """
        private_file.directory(self._state)
        self._socket = sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        with _in(self._state) as folder:
            own = folder / f".{_SOCKET}.{os.getpid()}"
            own.unlink(missing_ok=True)
            sock.bind(str(own))
            own.chmod(0o600)
            sock.listen()
            self._inode = own.stat().st_ino
            own.replace(folder / _SOCKET)
        self._loop.add_reader(sock.fileno(), self._on_knock)

    def close(self) -> None:
        """Open to nobody; visits under way end."""
        if self._socket is None:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None
        with contextlib.suppress(OSError), _in(self._state) as folder:
            path = folder / _SOCKET
            if path.stat().st_ino == self._inode:  # and not that of a successor
                path.unlink()
        for visit in list(self._visits):
            visit.cancel()

    def _on_knock(self) -> None:
        assert self._socket is not None
        try:
            sock, _ = self._socket.accept()
        except OSError:  # gone again
            return
        visit = self._loop.create_task(self._receive(Channel(sock)))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def _receive(self, channel: Channel) -> None:
        try:
            if channel.uid != os.geteuid():
                log.warning(
                    "take-over by process %d of user %d refused: expected user %d",
                    channel.pid, channel.uid, os.geteuid(),
                )  # fmt: skip
                return
            async with asyncio.timeout(ANSWER_WITHIN):
                take, _ = await channel.receive(Take)
            if take.protocol != PROTOCOL:
                reason = f"it speaks version {PROTOCOL} of the hand-over, not {take.protocol}"
                await channel.send(Refused(reason=reason))
            elif self._busy:
                await channel.send(Refused(reason=self._busy))
            else:
                await self._hand_over(channel)
        except (ChannelError, TimeoutError) as error:
            log.warning("take-over by process %d: %s", channel.pid, str(error) or "no word in time")
        finally:
            channel.close()

    async def _hand_over(self, channel: Channel) -> None:
        self._busy = f"process {channel.pid} is taking over already"
        taken = False
        try:
            log.info("process %d is taking over", channel.pid)
            await self._on_asked()
            async with asyncio.timeout(READY_WITHIN + ANSWER_WITHIN):
                await self._hand_sockets(channel)
                await channel.receive(Serving)
            taken = True
            self._busy = f"process {channel.pid} has taken over"
            await self._on_taken()
            await channel.send(Yours())
        except TimeoutError:
            why = "it did not become ready in time"
            log.warning("process %d has not taken over: %s", channel.pid, why)
            await channel.send(Refused(reason=why))
        except ChannelError as error:
            log.warning("process %d has not taken over: %s", channel.pid, error)
        finally:
            if not taken:
                self._busy = ""
                self._on_failed()

    async def _hand_sockets(self, channel: Channel) -> None:
        pairs = [(place, sock) for place, group in self._sockets().items() for sock in group]
        for start in range(0, max(1, len(pairs)), DESCRIPTORS):
            if start:
                await channel.receive(More)
            part = pairs[start : start + DESCRIPTORS]
            handed = Handed(
                places=tuple(place for place, _ in part), more=start + DESCRIPTORS < len(pairs)
            )
            await channel.send(handed, [sock.fileno() for _, sock in part])


@contextlib.contextmanager
def _in(directory: Path) -> Iterator[Path]:
    """
    Yield a short name for a directory.

    The address of a Unix socket holds 107 bytes, less than many a path.
    """
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
