"""
How the processes of a local mesh are, as `meshctl up` knows it and `status` and `proxies` tell it.

The control plane cannot know that an app crashes at each start, or listens on another port than
its $PORT: it has no hand in starting it.  Who has writes what it sees to one file in the run
directory, and the other verbs find that through their context.
"""

from pathlib import Path
from typing import Literal

from msgspec import Struct

from control_plane.cli.context import Context
from control_plane.cli.local.backoff import WELL_AFTER
from control_plane.cli.output import age
from meshproxy.contract import wire

FILE = "processes.json"
STARTING: Literal["starting"] = "starting"
Role = Literal["app", "proxy", "control-plane"]
LISTENS_AFTER = 5.0
"""Seconds after which an app that does not listen yet is taken to be in trouble."""


class Life(Struct, frozen=True, kw_only=True):
    """
    Where a process stands.

    Attributes:
        state: Starting waits for what it needs, restarting for its next try.
        since: When that began, in seconds since the epoch.
        ending: How it ended the last time, such as ``ended with exit code 127``.
        failures: How often in a row, without having lived long in between.
    """

    state: Literal["starting", "running", "restarting"]
    since: float
    ending: str = ""
    failures: int = 0


class Process(Struct, frozen=True, kw_only=True):
    """
    One process of the mesh.

    Attributes:
        name: Under which its lines are shown, such as ``catalog-v1/app``.
        workload: ``namespace/name``; empty for the control plane.
        role: What it is to the workload.
        missing: Variables and ports on which it should listen and does not: ``$PORT (21734)``.
        log: File with all that it said.
    """

    name: str
    workload: str
    role: Role
    life: Life
    missing: tuple[str, ...] = ()
    log: str = ""

    def word(self, now: float) -> str:
        """Return its state in a word or two, for a column."""
        life = self.life
        if life.state == "running" and self._fails_again_and_again(now):
            return "restarting"
        if life.state == "running" and self.missing:
            return "starting" if now < life.since + LISTENS_AFTER else "not listening"
        return life.state

    def problem(self, now: float) -> str | None:
        """Return what is wrong with it in a sentence; None when nothing is."""
        word, life = self.word(now), self.life
        if word == "restarting":
            often = f", {life.failures} times in a row" if life.failures > 1 else ""
            return f"{self.name} {life.ending}{often}; its log: {self.log}"
        if word == "not listening":
            ports = " and ".join(self.missing)
            return f"{self.name} does not listen on its {ports}, {age(now - life.since)} after its start"
        return None

    def _fails_again_and_again(self, now: float) -> bool:
        # Between two crashes it runs, for a moment; that is not being well.
        return self.life.failures > 1 and now < self.life.since + WELL_AFTER


class Report(Struct, frozen=True, kw_only=True):
    """
    What `meshctl up` wrote.

    Attributes:
        warnings: What is allowed, and yet surely not meant (see `control_plane.cli.warnings`).
    """

    processes: tuple[Process, ...] = ()
    warnings: tuple[str, ...] = ()


def of(context: Context) -> Report:
    """
    Return the report on the mesh of a context; an empty one where there is none.

    Raises:
        ContractError: The file is damaged.
    """
    if context.run_dir is None:
        return Report()
    try:
        return wire.decode(Path(context.run_dir, FILE).read_bytes(), Report)
    except FileNotFoundError:
        return Report()
