"""
Programs that a benchmark starts: each with a log, ready when it says so, ended by its own id.

`Processes` is a `with` block: whatever was started in it is ended when it is left, in the reverse
order, however it is left.
"""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

STARTING = 20.0
ENDING = 10.0
_TAIL = 2000


class StartError(Exception):
    """A program did not become ready; says what it has logged."""


class Process:
    """
    One running program; what it says goes to `log`.

    Attributes:
        admin: Port of a sidecar's own pages; 0 for other programs.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.admin = 0
        with log.open("wb") as out:
            try:
                self._popen = subprocess.Popen(
                    list(command),
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C is for the bench, which then ends its processes in order.
                    start_new_session=True,
                )
            except OSError as error:
                raise StartError(f"{name}: {command[0]}: {error.strerror}") from error

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def until(self, what: str, holds: Callable[[], bool], patience: float = STARTING) -> None:
        """
        Wait until `holds`.

        Raises:
            StartError: The program has ended before that, or takes too long.
        """
        deadline = time.monotonic() + patience
        while not holds():
            if not self.running:
                raise StartError(f"{self.name} ended with {self._popen.poll()}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name}: waited in vain until {what}:\n{self.tail()}")
            time.sleep(0.002)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-_TAIL:].strip() or "(it has logged nothing)"

    def ask_to_end(self) -> None:
        self._popen.terminate()

    def end(self) -> None:
        """End it: as an operator would, and by force when it takes its time."""
        self.ask_to_end()
        try:
            self._popen.wait(timeout=ENDING)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


class Processes:
    """Everything that runs."""

    def __init__(self) -> None:
        self._all: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(self._all)

    def start(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """
        Start a program in `folder`, where its log goes, too.

        Raises:
            StartError: It cannot be started.
        """
        process = Process(name, command, folder / f"{name}.log", folder, environment)
        self._all.append(process)
        return process

    def end(self, some: Sequence[Process]) -> None:
        some = list(reversed(some))
        for process in some:
            process.ask_to_end()
        for process in some:
            process.end()
            self._all.remove(process)
