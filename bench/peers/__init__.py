"""
The proxies that are compared, one file for each: its configuration as text, and how to start it.

All are told to do the same work; what one of them cannot do is said in `bench/README.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from bench import lag
from bench.cost import Memory, cpu_nanoseconds, memory
from bench.lag import Beats
from bench.process import Process
from bench.site import Service, Site, answers

Side = Literal["a", "b", "single"]
"""A takes plaintext and dials mTLS, B the reverse, `single` has plaintext on both sides."""


class Peer(Protocol):
    """
    One program that can stand beside an app.

    Attributes:
        pair: It can be both sides of a pair with mutual TLS.
        single: It can be a single hop.
        alpn: What its B wants to hear for HTTP/2.
    """

    name: str
    pair: bool
    single: bool
    alpn: str

    def version(self) -> str:
        """
        Return its version.

        Raises:
            MissingError: It is not installed.
        """

    def lacks(self, service: Service) -> str | None:
        """Say why it cannot serve a service, or None."""

    def start(
        self, site: Site, side: Side, services: Sequence[Service], folder: Path, name: str
    ) -> Process:
        """
        Start one side of it, with its files in `folder`.

        Raises:
            StartError: It did not start.
        """


@dataclass
class Running:
    """A peer that runs: its processes are what is measured."""

    peer: Peer
    services: dict[str, Service]
    processes: list[Process]
    lacking: dict[str, str] = field(default_factory=dict)

    def cpu(self) -> int:
        return sum(self.cpu_by_side())

    def cpu_by_side(self) -> list[int]:
        """On-CPU nanoseconds so far, of A and of B."""
        return [cpu_nanoseconds(process.pid) for process in self.processes]

    def beats(self) -> list[Beats]:
        """Return the beats of the event loops so far; of ours only, for nobody else tells."""
        return [lag.read(process.admin) for process in self.processes if process.admin]

    def memory(self) -> Memory:
        each = [memory(process.pid) for process in self.processes]
        return Memory(sum(one.rss for one in each), sum(one.private for one in each))


def start_pair(peer: Peer, site: Site, name: str) -> Running:
    """
    Start both sides, B first, and wait for the first 200 through both.

    Raises:
        StartError: One of them did not start.
    """
    running = _running(peer, site, between=True)
    folder, services = site.subfolder(name), list(running.services.values())
    running.processes.append(peer.start(site, "b", services, folder, f"{name}-b"))
    running.processes.append(peer.start(site, "a", services, folder, f"{name}-a"))
    running.processes.reverse()
    _until_answered(running)
    return running


def start_single(peer: Peer, site: Site, name: str) -> Running:
    """
    Start a single hop and wait for the first 200 through it.

    Raises:
        StartError: It did not start.
    """
    running = _running(peer, site, between=False, only=("web",))
    folder, services = site.subfolder(name), list(running.services.values())
    running.processes.append(peer.start(site, "single", services, folder, name))
    _until_answered(running)
    return running


def _running(
    peer: Peer, site: Site, *, between: bool, only: Sequence[str] | None = None
) -> Running:
    wanted = [one for one in site.services if only is None or one.name in only]
    lacking = {one.name: why for one in wanted if (why := peer.lacks(one)) is not None}
    placed = site.placed([one for one in wanted if one.name not in lacking], between=between)
    return Running(peer, {one.name: one for one in placed}, [], lacking)


def _until_answered(running: Running) -> None:
    web = running.services["web"]
    for process in reversed(running.processes):
        process.until("a request is answered through it", lambda: answers(web))
