"""
Workers: several processes that serve the traffic of one proxy, for machines with many cores.

    parent ──orders──▶ worker 1    its own event loop, connections, pools and counters
      │    ──orders──▶ worker 2
      │  keeps: admin port, discovery, certificates, and every listening socket

The parent carries no traffic.  It speaks the same words as `traffic.Traffic`, so that the rest of
the proxy need not know how many processes serve.

**One configuration.**  A snapshot is prepared by every worker, and committed when all of them can
obey it; when one cannot, all discard it.  So the control plane hears one answer, and no two
workers ever disagree for longer than a message takes.

**Each worker accepts from sockets of its own** (SO_REUSEPORT: the kernel spreads new connections),
and the parent keeps a descriptor of every one.  When a worker dies, its connections die with it,
but those that wait in its queues do not: its successor accepts them a moment later.

**One set of counters.**  Whoever asks for metrics gets the sums; what a dead worker had counted when
it was asked last stays in them, because a sum that falls looks like a restart to Prometheus.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any

from msgspec import Raw

from meshproxy.backoff import Backoff
from meshproxy.config import bootstrap
from meshproxy.config.bootstrap import Bootstrap
from meshproxy.contract.resources import Snapshot
from meshproxy.contract.wire import ContractError
from meshproxy.downstream.sockets import Place, Sockets, cannot_listen
from meshproxy.identity.certificates import Certificates
from meshproxy.telemetry.counts import Counts
from meshproxy.telemetry.metrics import Metrics

from .channel import DESCRIPTORS, Channel, ChannelError
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

ANSWER_WITHIN = 30.0
"""Seconds after which a worker that does not answer is taken for stuck, and killed."""

SETTLED = 10.0
"""A worker that lived this many seconds was a good one: the next is started without delay."""

MARGIN = 2.0
"""Seconds beyond the drain time for workers to end by themselves."""


class Member:
    """
    One worker, as the parent sees it.

    Attributes:
        ready: It obeys the configuration in force.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = False
        self.process: asyncio.subprocess.Process | None = None
        self.counts = Counts()  # as of the last time it was asked
        self._channel: Channel | None = None
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        pid = None if self.process is None else self.process.pid
        return f"<Member {self.number}, process {pid}, {'ready' if self.ready else 'not ready'}>"

    async def start(self) -> None:
        """
        Raises:
            OSError: The machine has no room for another process.
        """
        self.process = None
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        level = logging.getLevelName(log.getEffectiveLevel()).lower()
        with theirs:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "meshproxy", "worker"),
                *("--number", str(self.number), "--channel", str(theirs.fileno())),
                *("--log-level", level),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=_environment(),
            )

    async def ask(self, order: Order, sockets: Iterable[socket.socket] = ()) -> Answer:
        """
        Give an order and return the answer.

        Raises:
            ChannelError: The worker is dead, or stuck and therefore killed.
        """
        async with self._turn:
            if self._channel is None:
                raise ChannelError("it has died")
            try:
                async with asyncio.timeout(ANSWER_WITHIN):
                    await self._channel.send(order, [sock.fileno() for sock in sockets])
                    answer: Answer
                    answer, _ = await self._channel.receive(Answer)
                    return answer
            except TimeoutError:
                log.error("worker %d does not answer: killed", self.number)
                self.kill()
                self.ready = False
                raise ChannelError(f"no answer within {ANSWER_WITHIN:.0f} s") from None
            except ChannelError:
                self.ready = False
                raise

    async def ended(self) -> int | None:
        """Wait for its end and return the exit status, or None if it never began."""
        status = None if self.process is None else await self.process.wait()
        self.ready = False
        async with self._turn:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
        return status

    def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()


class Crew:
    """All workers of one proxy; understands what `traffic.Traffic` does."""

    def __init__(
        self, subject: Bootstrap, certificates: Certificates, metrics: Metrics, sockets: Sockets
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._bootstrap = subject
        self._certificates = certificates
        self._metrics = metrics  # the parent's own
        self._given = sockets
        self._departed = Metrics()  # what the dead have counted
        self._members = [Member(number) for number in range(1, subject.workers + 1)]
        self._keeping: list[asyncio.Task[None]] = []
        self._places: dict[Place, list[socket.socket]] = {}
        self._snapshot: Snapshot | None = None
        self._change = asyncio.Lock()  # one change of what the workers know at a time
        self._telling: set[asyncio.Task[None]] = set()
        self._someone = asyncio.Event()
        self._holding = False
        self._end = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Crew {self._members}>"

    # Start ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._certificates.on_changed = self._on_certificates_changed
        for member in self._members:
            task = self._loop.create_task(self._keep(member))
            task.add_done_callback(_on_kept)
            self._keeping.append(task)

    def hold(self) -> None:
        """Accept nothing before `open`: another process still serves these ports."""
        self._holding = True

    async def open(self) -> None:
        """Accept from now on."""
        async with self._change:  # so what is to be told about certificates has been told
            self._holding = False
            await self._tell(Open())

    async def _keep(self, member: Member) -> None:
        """Have this worker run, whatever happens to it."""
        backoff = Backoff()
        while True:
            began = self._loop.time()
            try:
                await member.start()
                await self._introduce(member)
            except (ChannelError, OSError) as error:
                log.error("worker %d cannot be started: %s", member.number, error)
                member.kill()
            status = await member.ended()
            if not self._ready:
                self._someone.clear()
            self._departed.add(member.counts.of_the_dead())
            member.counts = Counts()
            if self._ending:
                return
            if status is not None:
                log.error(
                    "worker %d has died (status %d); another takes its place", member.number, status
                )
            if self._loop.time() - began > SETTLED:
                backoff.reset()
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff.next()):
                        await self._end.wait()

    async def _introduce(self, member: Member) -> None:
        """Tell a new worker all that the others know."""
        begin = Begin(bootstrap=Raw(bootstrap.encode(self._bootstrap)), hold=self._holding)
        await self._must(member, begin)  # answered when its Python is up
        # From here on nothing may change: what it is told must not be older than what holds.
        async with self._change:
            if self._ending:
                raise ChannelError("it is not needed any more")
            if begin.hold and not self._holding:
                await self._must(member, Open())
            await self._must(member, self._believe())
            if self._snapshot is not None:
                await self._hand(member, self._places)
                await self._must(member, Prepare(snapshot=self._snapshot))
                await self._must(member, Commit())
            member.ready = True
            self._someone.set()

    async def _must(self, member: Member, order: Order) -> None:
        """
        Raises:
            ChannelError: It is dead, or does not do what all others have done.
        """
        answer = await member.ask(order)
        if isinstance(answer, Failed):
            raise ChannelError(f"{answer.path}: {answer.reason}" if answer.path else answer.reason)

    # Configuration: all obey, or nobody -----------------------------------------------------------

    async def adopt(self, snapshot: Snapshot) -> None:
        """
        Obey a snapshot.

        Raises:
            ContractError: One worker cannot; for all, the one before stays in force.
        """
        # Whoever waits for us may be cancelled; half of the crew must not stay behind.
        await asyncio.shield(self._loop.create_task(self._adopt(snapshot)))

    async def _adopt(self, snapshot: Snapshot) -> None:
        for _ in range(2):  # a worker may die just now by chance, but hardly twice
            await self._someone.wait()
            if await self._obeyed(snapshot):
                return
        raise ContractError("", "workers die over it, and nobody can say why")

    async def _obeyed(self, snapshot: Snapshot) -> bool:
        """
        Have all workers obey; say whether they did, or one has died instead of answering.

        Raises:
            ContractError: One of them cannot.
        """
        async with self._change:
            asked = len(self._ready)
            opened = self._open_places(snapshot)
            try:
                await self._each(self._hand(member, opened) for member in self._ready)
                answers = await self._tell(Prepare(snapshot=snapshot))
                for answer in answers:
                    if isinstance(answer, Failed):
                        raise ContractError(answer.path, answer.reason)
            except ContractError:
                await self._tell(Discard())
                self._give_back(opened)
                raise
            if not answers or len(answers) < asked:
                await self._tell(Discard())
                self._give_back(opened)
                return False
            await self._tell(Commit())
            self._snapshot = snapshot
            self._places |= opened
            wanted = {(spec.address, spec.port) for spec in snapshot.listeners}
            _close({place: self._places.pop(place) for place in self._places.keys() - wanted})
            return True

    def _open_places(self, snapshot: Snapshot) -> dict[Place, list[socket.socket]]:
        opened: dict[Place, list[socket.socket]] = {}
        for spec in snapshot.listeners:
            place = (spec.address, spec.port)
            if place in self._places or place in opened:
                continue
            try:
                opened[place] = self._given.take(place, len(self._members))
            except OSError as error:
                self._give_back(opened)
                raise cannot_listen(spec, error) from None
        return opened

    def _give_back(self, opened: dict[Place, list[socket.socket]]) -> None:
        for place, sockets in opened.items():
            self._given.give_back(place, sockets)

    async def _hand(self, member: Member, places: dict[Place, list[socket.socket]]) -> None:
        """Give a worker its share of the sockets in these places."""
        count, own = len(self._members), member.number - 1
        pairs = [(place, sock) for place, group in places.items() for sock in group[own::count]]
        for start in range(0, len(pairs), DESCRIPTORS):
            part = pairs[start : start + DESCRIPTORS]
            order = Hand(places=tuple(place for place, _ in part))
            await member.ask(order, [sock for _, sock in part])

    # Certificates ---------------------------------------------------------------------------------

    def _believe(self) -> Believe:
        certificate, key = self._certificates.files
        return Believe(
            certificate=None if certificate is None else str(certificate),
            key=None if key is None else str(key),
            roots=self._certificates.roots,
        )

    def _on_certificates_changed(self) -> None:
        task = self._loop.create_task(self._share_certificates())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _share_certificates(self) -> None:
        async with self._change:
            for answer in await self._tell(self._believe()):
                if isinstance(answer, Failed):
                    log.error("a worker cannot use the new certificate: %s", answer.reason)

    # Live -----------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether all workers obey the configuration."""
        return all(member.ready for member in self._members)

    @property
    def _ready(self) -> list[Member]:
        return [member for member in self._members if member.ready]

    @property
    def sockets(self) -> dict[Place, list[socket.socket]]:
        """What is accepted from, for a successor."""
        return self._places

    async def _tell(self, order: Order) -> list[Answer]:
        """Tell all workers, at once; return the answers of those that live."""
        answers: list[Answer] = []

        async def tell(member: Member) -> None:
            answers.append(await member.ask(order))

        await self._each(tell(member) for member in self._ready)
        return answers

    async def _each(self, asked: Iterable[Awaitable[None]]) -> None:
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            # A worker that is dead needs no order: its successor is told everything.
            if isinstance(outcome, BaseException) and not isinstance(outcome, ChannelError):
                raise outcome

    def counted(self) -> Metrics:
        """Return what all have counted together.  From another thread than the loop's."""
        return asyncio.run_coroutine_threadsafe(self._count(), self._loop).result()

    async def _count(self) -> Metrics:
        async def count(member: Member) -> None:
            answer = await member.ask(Count())
            if isinstance(answer, Counted):
                member.counts = answer.counts

        await self._each(count(member) for member in self._ready)
        total = Metrics()
        total.note(self._metrics)
        for counts in (self._departed.counts(), *(member.counts for member in self._members)):
            total.add(counts)
        return total

    def clusters(self) -> list[dict[str, Any]]:
        """Return the clusters of each worker.  From another thread than the loop's."""
        return asyncio.run_coroutine_threadsafe(self._describe(), self._loop).result()

    async def _describe(self) -> list[dict[str, Any]]:
        described: list[dict[str, Any]] = []

        async def describe(member: Member) -> None:
            answer = await member.ask(Describe())
            if isinstance(answer, Described):
                described.extend(
                    {**cluster, "worker": member.number} for cluster in answer.clusters
                )

        await self._each(describe(member) for member in self._ready)
        return sorted(described, key=lambda cluster: (cluster["name"], cluster["worker"]))

    def denials(self, number: str) -> list[dict[str, Any]]:
        """Return what any worker has denied.  From another thread than the loop's."""
        return asyncio.run_coroutine_threadsafe(self._recall(number), self._loop).result()

    async def _recall(self, number: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        async def recall(member: Member) -> None:
            answer = await member.ask(Recall(number=number))
            if isinstance(answer, Recalled):
                found.extend(answer.denials)

        await self._each(recall(member) for member in self._ready)
        return sorted(found, key=lambda denial: -denial["at"])

    # Drain and stop -------------------------------------------------------------------------------

    @property
    def _ending(self) -> bool:
        return self._end.is_set()

    async def retreat(self) -> None:
        """Accept no more."""
        self._end.set()
        async with self._change:
            await self._tell(Retreat())
            _close(self._places)

    async def drain(self) -> None:
        """Accept no more and wait until all workers have ended, up to the drain time."""
        await self.retreat()
        await self._tell(Drain())
        await asyncio.wait(self._keeping, timeout=self._bootstrap.drain_seconds + MARGIN)

    def hurry(self) -> None:
        """Drain no longer: whoever asked a second time means now."""
        self._telling.add(task := self._loop.create_task(self._hurry()))
        task.add_done_callback(self._telling.discard)

    async def _hurry(self) -> None:
        await self._tell(Hurry())

    async def close(self) -> None:
        """End everything."""
        self._end.set()
        self._certificates.on_changed = _nothing
        for task in self._telling:
            task.cancel()
        for member in self._members:
            member.kill()
        await asyncio.gather(*self._keeping, *self._telling, return_exceptions=True)
        _close(self._places)


def _on_kept(task: "asyncio.Task[None]") -> None:
    """A mistake of ours must not end in silence; the proxy is not ready any more, and says why."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("a worker is kept no longer", exc_info=error)


def _environment() -> dict[str, str]:
    """Return one in which this very program is found, never another in the current directory (-P)."""
    root = str(Path(__file__).parent.parent.parent)
    path = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def _close(places: dict[Place, list[socket.socket]]) -> None:
    for sockets in places.values():
        for sock in sockets:
            sock.close()
    places.clear()


def _nothing() -> None:
    """Nobody is left to be told."""
