"""
The demo while it runs: wait for the mesh, send visitors, draw the table, judge.

On a terminal the table is redrawn in place every second; elsewhere it is appended every five.
Both, and the one at the end, are drawn as `meshctl stat` draws it.
"""

import asyncio
import contextlib
import json
import textwrap
import time
from collections import deque
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console as Terminal
from rich.live import Live
from rich.text import Text

from control_plane.cli import invocation, stat, traffic
from control_plane.cli.errors import CommandError
from control_plane.cli.invocation import shorter
from control_plane.cli.load import Load
from control_plane.cli.local.logs import Console
from control_plane.cli.local.polling import until
from control_plane.cli.local.rundir import RunDirectory
from control_plane.cli.local.supervisor import Supervisor
from control_plane.cli.output import age, terminal_width
from control_plane.cli.scrape import scrape
from control_plane.cli.verdict import expected_hops, problems, proved, refused

RATE = 150.0
WIDEST = 100
"""Columns of prose."""
READY_WITHIN = 60.0
LOOK_EVERY = 1.0
APPEND_EVERY = 5
"""Looks between two tables where there is no terminal to redraw them on."""
WINDOW = 5
"""Looks that a table is made of: a second alone has too few requests for a p99."""

DOOR = ("default/visitors", "default/storefront:80")
"""Whose sidecar lets the visitors in, and by the local port of which service."""


class Demonstration:
    """
    One run of the demo.

    Attributes:
        problems: Why it was no success; None until it has been judged.
    """

    def __init__(
        self, files: Path, directory: RunDirectory, console: Console, seconds: float | None
    ) -> None:
        self.problems: list[str] | None = None
        self._files = files
        self._directory = directory
        self._console = console
        self._seconds = seconds
        self._tally = traffic.Tally()
        self._window: deque[tuple[float, dict[traffic.Series, float]]] = deque(maxlen=WINDOW)

    async def work(self, supervisor: Supervisor) -> None:
        """Do it all; returns when the time is over."""
        self._introduce(supervisor)
        load = Load(self._door(supervisor), RATE, is_the_storefront)
        await self._ready(supervisor, load)
        hops = expected_hops(supervisor.state.routes.values())
        await self._look(supervisor)
        began = time.monotonic()
        sending = asyncio.create_task(load.run())
        try:
            await self._watch(supervisor, load, began)
        finally:
            # Also when Ctrl-C ends the watching: every request gets its answer and is judged.
            load.stop()
            await sending
            await self._look(supervisor)
            self.problems = problems(load.answered, load.failures, self._tally.total, hops)
            self._summarize(load, time.monotonic() - began)

    # Before ---------------------------------------------------------------------------------------

    def _introduce(self, supervisor: Supervisor) -> None:
        say = self._console.announce
        apps = [
            workload.unit.workload.metadata.name
            for workload in supervisor.workloads.values()
            if workload.unit.app is not None
        ]
        self._prose(
            f"The demo mesh starts: a control plane; {', '.join(apps)}, each an app with a sidecar "
            "beside it; and visitors, a sidecar alone, the door for requests from outside."
        )
        say("")
        here = Path.cwd()
        say(f"  a request      curl {self._door(supervisor)}")
        say(f"  live routing   edit the weights in {shorter(self._files / 'routes.yaml', here)}")
        say(f"  its health     {invocation.typed('status', self._directory.context)}")
        say(f"  who is who     {invocation.typed('proxies', self._directory.context)}")
        say(f"  logs           {shorter(self._directory.logs, here)}")
        say("")

    async def _ready(self, supervisor: Supervisor, load: Load) -> None:
        problem: str | None = "the sidecars and apps are not ready"

        async def answers() -> bool:
            nonlocal problem
            problem = await load.once(session)
            return problem is None

        try:
            async with asyncio.timeout(READY_WITHIN):
                await supervisor.settled()
                problem = "not every proxy has its configuration"
                await until(supervisor.synced)
                async with aiohttp.ClientSession() as session:
                    await until(answers)
        except TimeoutError:
            raise CommandError(
                f"the demo was not ready within {READY_WITHIN:g} s: {problem}; "
                f"logs are in {self._directory.logs}"
            ) from None

    # While it runs --------------------------------------------------------------------------------

    async def _watch(self, supervisor: Supervisor, load: Load, began: float) -> None:
        """Look and draw until the time is over."""
        due, looks = began, 0
        with contextlib.ExitStack() as screen:
            live = self._live(screen)
            while self._seconds is None or time.monotonic() < began + self._seconds:
                due = max(due + LOOK_EVERY, time.monotonic())
                if self._seconds is not None:
                    due = min(due, began + self._seconds)
                await asyncio.sleep(due - time.monotonic())
                await self._look(supervisor)
                looks += 1
                if live is not None:
                    live.update(self._drawing(load, began, live.console.width), refresh=True)
                elif looks % APPEND_EVERY == 0:
                    self._append(load, began)

    def _live(self, screen: contextlib.ExitStack) -> Live | None:
        """Return what draws in place; None where there is no terminal."""
        terminal = Terminal()
        if not terminal.is_terminal:
            return None
        return screen.enter_context(Live(console=terminal, auto_refresh=False))

    async def _look(self, supervisor: Supervisor) -> None:
        began = time.monotonic()
        admins = [workload.admin for workload in supervisor.workloads.values()]
        flowed = self._tally.look(await asyncio.to_thread(scrape, admins))
        self._window.append((began, flowed))

    def _records(self) -> list[dict[str, Any]]:
        seconds = self._window[-1][0] - self._window[0][0]
        if seconds <= 0:
            return []
        flowed: dict[traffic.Series, float] = {}
        for _, risen in list(self._window)[1:]:
            for series, value in risen.items():
                flowed[series] = flowed.get(series, 0.0) + value
        return stat.records(traffic.edges(flowed), seconds)

    def _headline(self, load: Load, began: float) -> str:
        return (
            f"after {age(time.monotonic() - began)}: {load.requests} requests from outside, "
            f"{load.failures.total()} failed"
        )

    def _drawing(self, load: Load, began: float, width: int) -> Text:
        lines = f"{self._headline(load, began)}\n\n{stat.render(self._records(), width)}\n"
        return Text(lines, no_wrap=True, overflow="crop")

    def _append(self, load: Load, began: float) -> None:
        self._console.announce(self._headline(load, began))
        self._console.announce(stat.render(self._records()) + "\n")

    # After ----------------------------------------------------------------------------------------

    def _summarize(self, load: Load, seconds: float) -> None:
        say = self._console.announce
        latency = [load.latency(share) for share in (0.5, 0.99)]
        p50, p99 = ("-" if value is None else f"{1000 * value:.1f} ms" for value in latency)
        say("")
        self._prose(
            f"{load.requests} requests from outside in {seconds:.1f} s: {load.answered} answered, "
            f"{load.failures.total()} failed; p50 {p50}, p99 {p99}, through every hop"
        )
        edges = traffic.edges(self._tally.total)
        say("")
        say(stat.render(stat.records(edges, seconds), terminal_width()))
        say("")
        by_mtls, every = proved(edges)
        say(f"{by_mtls:.0f} of {every:.0f} requests between sidecars were mutual TLS")
        if not self.problems and (others := refused(edges)):
            self._prose(f"refused, but not to the load: {'; '.join(others)}")

    def _prose(self, text: str) -> None:
        self._console.announce(textwrap.fill(text, min(terminal_width() or WIDEST, WIDEST)))

    def _door(self, supervisor: Supervisor) -> str:
        workload, service = DOOR
        if workload not in supervisor.workloads:
            raise CommandError(f"the demo has no workload {workload}: {self._files} was changed")
        placement = supervisor.workloads[workload].placement
        return f"http://{placement.address}:{placement.service_ports[service]}/"


def is_the_storefront(body: bytes) -> bool:
    """Say whether a body is the storefront's, with what catalog and reviews had to say."""
    try:
        page = json.loads(body)
        return bool(page["catalog"]) and all(item["stars"] > 0 for item in page["items"])
    except (ValueError, KeyError, TypeError):
        return False
