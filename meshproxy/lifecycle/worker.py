"""
A worker: serves traffic, and does as its parent says (`crew.py`, `orders.py`).

It follows no control plane, renews no certificate and has no admin port.  When its parent is gone,
nobody would tell it anything any more: it drains and ends, so that whoever is started in the
parent's place finds the ports free.
"""

import asyncio
import logging
import signal
import socket
from pathlib import Path

from meshproxy.config import bootstrap
from meshproxy.config.snapshot import Prepared
from meshproxy.contract.wire import ContractError
from meshproxy.downstream.sockets import Sockets
from meshproxy.identity.certificates import Certificates
from meshproxy.identity.x509 import CertificateError
from meshproxy.telemetry.metrics import Metrics
from meshproxy.traffic import Traffic

from .channel import Channel, ChannelError
from .orders import (
    Answer,
    Begin,
    Believe,
    Commit,
    Count,
    Counted,
    Describe,
    Described,
    Discard,
    Done,
    Drain,
    Failed,
    Hand,
    Hurry,
    Open,
    Order,
    Prepare,
    Recall,
    Recalled,
    Retreat,
)

log = logging.getLogger("meshproxy")


async def work(descriptor: int) -> None:
    """Serve until told to end; `descriptor` is our end of the parent's channel."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C, and some supervisors, reach the whole family; our parent says what is to be done.
        loop.add_signal_handler(number, lambda: None)
    channel = Channel(socket.socket(fileno=descriptor))
    begin, _ = await channel.receive(Begin)
    worker = Worker(begin)
    await worker.start()
    await channel.send(Done())
    listening = loop.create_task(_listen(channel, worker))

    def on_deaf(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            worker.ended.set()

    listening.add_done_callback(on_deaf)
    try:
        await worker.ended.wait()
        if listening.done():
            await listening  # raises what it has failed of: another takes this worker's place
    finally:
        listening.cancel()
        await worker.close()
        channel.close()


async def _listen(channel: Channel, worker: "Worker") -> None:
    try:
        while True:
            order, sockets = await channel.receive(Order)
            await channel.send(await worker.obey(order, sockets))
    except ChannelError as error:
        if not worker.draining:
            log.error("the parent cannot be heard: %s", error)
            worker.drain()


class Worker:
    """
    Attributes:
        draining: It will end when what runs has ended.
        ended: Set when it has nothing more to do.
    """

    def __init__(self, begin: Begin) -> None:
        subject = bootstrap.decode(bytes(begin.bootstrap))
        self.draining = False
        self.ended = asyncio.Event()
        self._metrics = Metrics()
        self._certificates = Certificates(subject.identity)
        self._sockets = Sockets()
        self._traffic = Traffic(subject, self._certificates, self._metrics, self._sockets)
        if begin.hold:
            self._traffic.hold()
        self._prepared: Prepared | None = None
        self._drain: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._traffic.start()

    async def obey(self, order: Order, sockets: list[socket.socket]) -> Answer:
        """Do what is said, and return what is to be answered."""
        match order:
            case Count():
                return Counted(counts=self._traffic.counted().counts())
            case Describe():
                return Described(clusters=self._traffic.clusters())
            case Recall():
                return Recalled(denials=self._traffic.denials(order.number))
            case Open():
                await self._traffic.open()
            case Retreat():
                await self._traffic.retreat()
            case Drain():
                self.drain()
            case Hurry():
                self._traffic.hurry()
            case _:
                return self._configure(order, sockets)
        return Done()

    # Certificate and configuration ----------------------------------------------------------------

    def _configure(self, order: Order, sockets: list[socket.socket]) -> Answer:
        try:
            match order:
                case Believe():
                    self._believe(order)
                case Hand():
                    for place, sock in zip(order.places, sockets, strict=True):
                        self._sockets.hand(place, [sock])
                case Prepare():
                    self._prepared = self._traffic.mesh.prepare(order.snapshot)
                case Commit():
                    self._commit()
                case Discard():
                    self._discard()
                case _:
                    return Failed(reason=f"{order} was not expected")
        except CertificateError as error:
            return Failed(path="certificate", reason=str(error))
        except ContractError as error:
            return Failed(path=error.path, reason=error.reason)
        return Done()

    def _believe(self, order: Believe) -> None:
        certificate = None if order.certificate is None else Path(order.certificate)
        key = None if order.key is None else Path(order.key)
        self._certificates.follow(certificate, key, order.roots)

    def _commit(self) -> None:
        assert self._prepared is not None, "nothing was prepared"
        self._traffic.commit(self._prepared)
        self._prepared = None

    def _discard(self) -> None:
        if self._prepared is not None:
            self._traffic.mesh.discard(self._prepared)
            self._prepared = None
        self._sockets.close()

    # The end --------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Begin to end."""
        if not self.draining:
            self.draining = True
            self._drain = asyncio.get_running_loop().create_task(self._traffic.drain())
            self._drain.add_done_callback(lambda _: self.ended.set())

    async def close(self) -> None:
        """End everything."""
        await self._traffic.close()
        self._sockets.close()
