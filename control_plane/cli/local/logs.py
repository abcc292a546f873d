"""
What the processes say: each line under its process's name, on the terminal and in a file of its own.

    catalog-v1/app   │ listening on 127.0.0.1:21734
    catalog-v1/proxy │ 3 listeners, version 5f0c…
"""

import re
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from control_plane.cli.output import printable

NAME = "meshctl"
"""Under which we speak ourselves."""

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""ANSI foreground colours that can be read on dark and on light ground; red is for trouble."""
TROUBLE = 31
LONGEST_LINE = 16 * 1024
REMEMBERED = 20
LARGEST_FILE = 10 * 1024 * 1024
_ROUTINE = re.compile(r"[0-9-]+ [0-9:,]+ (?:DEBUG|INFO) ")
"""How lines of our own programs begin that are of interest to whoever looks for something."""


class LineSplitter:
    """Cuts a stream of bytes into lines; a line that has no end is cut where it is too long."""

    def __init__(self, longest: int = LONGEST_LINE) -> None:
        self._longest = longest
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > self._longest:
            lines.append(self._rest[: self._longest])
            self._rest = self._rest[self._longest :]
        return [_text(line) for line in lines]

    def end(self) -> list[str]:
        """Return what is left when the stream has ended."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode(errors="replace")


class Console:
    """
    The terminal, shared by all processes.

    Attributes:
        echo: Whether lines of the processes are shown; announcements of `meshctl` always are.
        verbose: Whether routine lines of our own programs are shown too.
        on_lost: Called once when nobody reads any more: `| head` has seen enough, a terminal closed.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        *,
        colour: bool = False,
        echo: bool = True,
        verbose: bool = False,
    ) -> None:
        self._out = out
        self._colour = colour
        self._width = 0
        self._seen = 0
        self._lost = False
        self.echo = echo
        self.verbose = verbose
        self.on_lost: Callable[[], None] = lambda: None

    def register(self, name: str) -> int:
        """Make room for a process's name; return its colour."""
        self._width = max(self._width, len(name))
        self._seen += 1
        return COLOURS[(self._seen - 1) % len(COLOURS)]

    def line(self, name: str, colour: int, text: str) -> None:
        """Show one line of a process."""
        if self.echo:
            self._print(f"{self._painted(name.ljust(self._width), colour)} │ {printable(text)}")

    def say(self, name: str, text: str, *, trouble: bool = False) -> None:
        """Say something of meshctl's own about a process, under its name."""
        line = f"{name.ljust(self._width)} │ {printable(text)}"
        self._print(self._painted(line, TROUBLE) if trouble else line)

    def announce(self, text: str, *, trouble: bool = False) -> None:
        """Say something of meshctl's own, which stands by itself."""
        self._print(self._painted(text, TROUBLE) if trouble else text)

    def _painted(self, text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text

    def _print(self, text: str) -> None:
        if self._lost:
            return
        try:
            print(text, file=self._out or sys.stdout, flush=True)
        except OSError:
            self._lost = True
            self.on_lost()


class ProcessLog:
    """Everything one process says: to the console, to its file, and the last lines to memory."""

    def __init__(self, name: str, console: Console, path: Path, *, own: bool = False) -> None:
        self.name = name
        self._own = own
        self.path = path
        self.tail: deque[str] = deque(maxlen=REMEMBERED)
        self._console = console
        self._colour = console.register(name)
        self._splitter = LineSplitter()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def feed(self, data: bytes) -> None:
        """Take what the process wrote."""
        for line in self._splitter.feed(data):
            self._keep(line)
        self._file.flush()

    def end_of_output(self) -> None:
        """The process is gone: what it left unfinished is a line too."""
        for line in self._splitter.end():
            self._keep(line)
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _keep(self, line: str) -> None:
        self.tail.append(line)
        if self._console.verbose or not (self._own and _ROUTINE.match(line)):
            self._console.line(self.name, self._colour, line)
        if self._file.tell() > LARGEST_FILE:
            self._file.close()
            self.path.replace(self.path.with_suffix(".log.1"))
            self._file = self.path.open("a", encoding="utf-8")
        self._file.write(line + "\n")
