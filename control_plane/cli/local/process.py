"""
One child process: started, logged, restarted with backoff, stopped with everything it started.

    prepare → spawn → running ──ends──▶ backoff → prepare → …
                         │
                       stop(): SIGTERM to the group, a grace, SIGKILL to whoever is left

Every child leads a session, hence a process group, of its own.  Ctrl-C at the terminal then
reaches `meshctl` alone, which stops the children in an order that loses no request; and a
signal to the group reaches the children's children too.  Who moved to a session of its own, as
daemons do, is known by the mark of its launch, and ends with the rest.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from control_plane.cli.local import launch, minder
from control_plane.cli.local.backoff import WELL_AFTER, Backoff
from control_plane.cli.local.logs import Console, ProcessLog
from control_plane.cli.local.namespace import enter
from control_plane.cli.processes import STARTING, Life

LAST_WORDS = 1.0
"""Seconds in which the last lines of a child that has ended are read."""
POLL = 0.02
"""Seconds between two looks at whether a process group is empty; no signal tells."""


class NotReadyError(Exception):
    """A process cannot be started yet; the message says what it waits for."""


@dataclass(frozen=True)
class User:
    """
    Whom a child runs as.

    Attributes:
        read_all: It may read any file, as root may (see `launch`).
    """

    uid: int
    gid: int
    read_all: bool = False


@dataclass(frozen=True)
class Command:
    """
    What to execute.

    Attributes:
        namespace: The network namespace to run it in, by name; None for ours.
        user: None for ours.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    directory: Path
    namespace: str | None = None
    user: User | None = None


Prepare = Callable[[], Awaitable[Command]]
"""Called before every start, also the tenth: what it needs may have changed since the last."""

Groups = Callable[[int, bool], None]
"""Told of each process group when it appears (True) and when it is gone (False)."""


class ManagedProcess:
    """
    One child and its life.

    Args:
        name: Under which its lines are shown, such as ``catalog-v1/app``.
        prepare: Makes the command; may wait, and may raise `NotReadyError` or `OSError`.
        grace: Seconds between SIGTERM and SIGKILL.
        own: Whether it is one of our own programs, whose INFO lines are for the log file.
        on_group: Hears of the child's process group, before anything can go wrong with it.

    Attributes:
        pid: Of the child, which leads the process group of the same number; None while none runs.
        failures: How often it could not start, or ended without being asked to.
        life: Where it stands, in words for people.
    """

    def __init__(
        self,
        name: str,
        prepare: Prepare,
        console: Console,
        log: Path,
        *,
        grace: float,
        on_group: Groups = lambda _group, _alive: None,
        own: bool = False,
    ) -> None:
        self.name = name
        self.failures = 0
        self.life = Life(state=STARTING, since=time.time())
        self.pid: int | None = None
        self._row = 0
        self._prepare = prepare
        self._console = console
        self._log = ProcessLog(name, console, log, own=own)
        self._grace = grace
        self._on_group = on_group
        self._backoff = Backoff()
        self._stopping = False
        self._waiting = True
        self._spawned = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def log(self) -> Path:
        return self._log.path

    @property
    def last_lines(self) -> list[str]:
        return list(self._log.tail)

    def start(self) -> None:
        """Begin; the process is kept running until `stop`."""
        self._task = asyncio.create_task(self._keep_running(), name=self.name)

    async def stop(self) -> None:
        """End the process and its whole group; returns when nothing of it is left."""
        self._stopping = True
        if self._task is None:
            self._log.close()
            return
        if self._waiting:
            self._task.cancel()
        else:
            await self._spawned.wait()  # a child that nobody knows yet would be an orphan
        if self.pid is not None:
            _signal_group(self.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._grace):
                    await asyncio.shield(self._task)
            if self.pid is not None:
                self._console.say(
                    self.name, f"did not stop within {self._grace:g} s: killed", trouble=True
                )
                _signal_group(self.pid, signal.SIGKILL)
        task, self._task = self._task, None
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        finally:
            self._log.close()

    def kill(self) -> None:
        """End it now, without a word: the user asked twice."""
        if self.pid is not None:
            _signal_group(self.pid, signal.SIGKILL)

    # Its life -------------------------------------------------------------------------------------

    async def _keep_running(self) -> None:
        while not self._stopping:
            began = time.monotonic()
            try:
                command = await self._prepare()
            except NotReadyError as error:
                ending = f"cannot start: {error}"
            except OSError as error:  # a full disk, a directory that is gone: it may be mended
                where = f"{error.filename}: " if error.filename else ""
                ending = f"cannot start: {where}{error.strerror or error}"
            except Exception as error:  # a mistake of ours must not end in silence
                self._console.say(self.name, f"cannot start: {error!r}", trouble=True)
                raise
            else:
                self._waiting = False
                self._spawned.clear()
                ending = await self._run_once(command)
            if not self._stopping:
                self._waiting = True
                self.failures += 1
                lived = time.monotonic() - began
                self._row = 1 if lived >= WELL_AFTER else self._row + 1
                wait = self._backoff.after(lived)
                self.life = Life(
                    state="restarting", since=time.time(), ending=ending, failures=self._row
                )
                self._tell(f"{ending}; next try in {wait:g} s")
                await asyncio.sleep(wait)

    async def _run_once(self, command: Command) -> str:
        """Run the child to its end; return how it ended."""
        # A pipe of our own: asyncio's would not let `wait` return before every holder of it, such
        # as a process that the child left behind, has closed it.
        theirs, output = await _open_output(self._log)
        try:
            child = await asyncio.create_subprocess_exec(
                *_launcher(command),
                *command.arguments,
                env=command.environment,
                cwd=command.directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._spawned.set()
            output.close()
            return f"cannot start in {command.directory}: {error.strerror}"
        finally:
            os.close(theirs)
        self.pid = child.pid
        self.life = Life(
            state="running", since=time.time(), ending=self.life.ending, failures=self._row
        )
        self._on_group(child.pid, True)
        self._spawned.set()
        try:
            code = await child.wait()
        finally:
            # Whom the child started must not outlive it.
            await _end_group(child.pid, self._grace if self._stopping else 0.0)
            self._on_group(child.pid, False)
            self.pid = None
            await output.drained()
            self._log.end_of_output()
        return _ending(code)

    def _tell(self, text: str) -> None:
        self._console.say(self.name, text, trouble=True)
        if not self._console.echo:
            for line in self.last_lines[-5:]:
                self._console.say(self.name, f"    {line}")


class _Output(asyncio.Protocol):
    """What a child writes, on its way into the log."""

    def __init__(self, log: ProcessLog) -> None:
        self._log = log
        self._ended = asyncio.Event()
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._log.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's word)
        self._ended.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def drained(self) -> None:
        """Read to the end; who left the group and holds the pipe still is not waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self._ended.wait()
        self.close()


async def _open_output(log: ProcessLog) -> tuple[int, _Output]:
    """Return the end of a pipe that a child writes to, and what reads the other."""
    ours, theirs = os.pipe()
    _, output = await asyncio.get_running_loop().connect_read_pipe(
        lambda: _Output(log), os.fdopen(ours, "rb", buffering=0)
    )
    return theirs, output


def _launcher(command: Command) -> Iterator[str]:
    # Into the namespace first: that is for root alone.
    if command.namespace is not None:
        yield from enter(command.namespace)
    yield from (sys.executable, "-I", "-S", launch.__file__)
    if (user := command.user) is not None:
        yield from ("--user", f"{user.uid}:{user.gid}")
        if user.read_all:
            yield "--read-all"
    yield str(os.getpid())


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _signal_group(group: int, number: int) -> bool:
    """Signal every process of a group; return whether there was one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # a member changed its user: it lives, and is not ours to end
    return True


async def _end_group(group: int, grace: float) -> None:
    """End what is left of a group whose leader has ended, and who left the group before."""
    if not _signal_left(group, signal.SIGTERM):
        return
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        if not _lives(group):
            return
        await asyncio.sleep(POLL)
    _signal_left(group, signal.SIGKILL)


def _signal_left(group: int, number: int) -> bool:
    found = _signal_group(group, number)
    for process in [*minder.members(group)]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(process) != group:
                os.kill(process, number)
                found = True
    return found


def _lives(group: int) -> bool:
    if sys.platform != "linux":
        return _signal_group(group, 0)
    return any(True for _ in minder.members(group))
