"""
The referee: meshproxy beside Envoy, HAProxy, nginx and nghttpx that do the same work.

    python -m bench.compare [--quick] [--workload NAME …] [--peers NAME …] [--rounds N]
                            [--interpreted] [-o json]

All peers run at the same time and are loaded in turns, round by round.  Compare the columns of one
run, never figures of two runs: on a shared machine the same code can take 1.6 times the CPU from
one second to the next.  `bench/README.md` says how to read the table and what each peer is told to
do.  Exits with 1 when a request has failed or a peer has, not when a target is missed.
"""

import argparse
import json
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .clients import LoadError
from .lag import greatest
from .machine import facts, warnings
from .peers import Peer, Running, start_pair, start_single
from .peers.envoy import Envoy
from .peers.envoy_armed import EnvoyArmed
from .peers.haproxy import HAProxy
from .peers.nghttpx import Nghttpx
from .peers.nginx import Nginx
from .peers.ours import Ours, OursBare
from .process import StartError
from .programs import MissingError, find
from .results import Results, as_json, as_text
from .site import Site
from .tree import interpret
from .workloads import BARE, ENVOY, ENVOY_ARMED, LAG, OURS, Figures, Turn, Workload, everything

NAMES = (OURS, ENVOY_ARMED, BARE, ENVOY, "haproxy", "nginx", "nghttpx")


def peers(chosen: Sequence[str], envoy: Path | None) -> list[Peer]:
    """Return those that are to take part, ours beside whom it is compared with."""
    every: list[Peer] = [
        Ours(),
        EnvoyArmed(envoy),
        OursBare(),
        Envoy(envoy),
        HAProxy(),
        Nginx(),
        Nghttpx(),
    ]
    return [peer for peer in every if peer.name in chosen]


def workloads(chosen: Sequence[str]) -> list[Workload]:
    """Return those that are asked for, by name or by group; all of them if none is."""
    return [one for one in everything() if not chosen or one.name in chosen or one.group in chosen]


# Running ------------------------------------------------------------------------------------------


class Race:
    """
    All peers on one site.

    Attributes:
        missing: What could not take part, by name, with the reason.
        sound: Whatever is installed has started.
    """

    def __init__(self, site: Site, taking_part: Sequence[Peer]) -> None:
        self._site = site
        self._peers = taking_part
        self.missing: dict[str, str] = {}
        self.sound = True
        self.versions: dict[str, str] = {}
        self._running: dict[tuple[str, str], Running] = {}

    def prepare(self, chosen: Sequence[Workload]) -> None:
        """Start every peer that is needed; what cannot be started is noted, with its log."""
        self._site.start_apps()
        hops = {workload.hop for workload in chosen}
        for peer in self._peers:
            if not any(workload.wants(peer.name) for workload in chosen):
                continue
            try:
                self.versions[peer.name] = peer.version()
            except MissingError as error:
                self._without(peer.name, str(error))
                continue
            try:
                if "pair" in hops and peer.pair:
                    self._running[peer.name, "pair"] = start_pair(peer, self._site, peer.name)
                if "single" in hops and peer.single:
                    name = f"{peer.name}-single"
                    self._running[peer.name, "single"] = start_single(peer, self._site, name)
            except StartError as error:
                self._without(peer.name, f"did not start: {error}")
                self.sound = False

    def _without(self, name: str, reason: str) -> None:
        self.missing[name] = reason
        note(f"Without {name}: {reason}")

    def run(self, workload: Workload, rounds: int, seconds: float) -> Results:
        """Load all peers in turns."""
        results = Results(workload)
        taking_part = self._taking_part(workload, results)
        for number in range(0 if workload.warm_up else 1, rounds + 1):
            shared: Figures = {}
            # Each begins once, so that nobody always runs in the wake of the same other.
            first = number % max(1, len(taking_part))
            for running in taking_part[first:] + taking_part[:first]:
                turn = Turn(self._site, running, seconds if number else min(seconds, 1), shared)
                found = self._measure(workload, turn, results)
                if number:
                    results.samples[running.peer.name].append(found)
            if number and taking_part:
                note(f"{workload.name} {number}/{rounds}  {_progress(results)}")
        return results

    def _taking_part(self, workload: Workload, results: Results) -> list[Running]:
        try:
            for program in workload.needs:
                find(program)
        except MissingError as error:
            results.remarks["load"] = str(error)
            return []
        taking_part = []
        for (name, hop), running in self._running.items():
            if hop != workload.hop or not workload.wants(name):
                continue
            if why := running.lacking.get(workload.service):
                results.remarks[name] = why
                continue
            results.samples[name] = []
            taking_part.append(running)
        for name, why in self.missing.items():
            if not workload.wants(name):
                continue
            results.remarks[name] = why.splitlines()[0]
        return taking_part

    @staticmethod
    def _measure(workload: Workload, turn: Turn, results: Results) -> Figures | None:
        try:
            before = [] if workload.own else turn.running.beats()
            found = workload.measure(turn)
            # Outside of what is measured: to tell of its metrics costs a sidecar CPU, too.
            if before:
                after = turn.running.beats()
                found[LAG.key] = max(map(greatest, before, after))
            return found
        except (LoadError, StartError, OSError) as error:
            name = turn.running.peer.name
            results.remarks[name] = f"failed: {error}"
            logs = "\n".join(process.tail() for process in turn.running.processes)
            note(f"{workload.name}: {name} failed: {error}\n{logs}")
            return None


def _progress(results: Results) -> str:
    metric = results.workload.metrics[0]
    return f"{metric.title}: " + "  ".join(
        f"{peer} {latest[metric.key]:.{metric.digits}f}" if latest else f"{peer} failed"
        for peer, rounds in results.samples.items()
        for latest in rounds[-1:]
    )


def note(text: str) -> None:
    """Progress goes to standard error, so that `-o json` stays JSON."""
    print(text, file=sys.stderr, flush=True)


# The command line ---------------------------------------------------------------------------------


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    every = everything()
    names = list(dict.fromkeys(name for one in every for name in (one.name, one.group)))
    parser = argparse.ArgumentParser(
        prog="bench.compare",
        description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 second, for a look")
    parser.add_argument(
        "--workload", action="append", choices=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument("--peers", nargs="+", choices=NAMES, default=NAMES, metavar="NAME",
                        help="who takes part: " + ", ".join(NAMES))  # fmt: skip
    parser.add_argument("--rounds", type=int, help="5, or 2 with --quick")
    parser.add_argument("--seconds", type=float, help="of each turn: 3, or 1 with --quick")
    parser.add_argument("--interpreted", action="store_true",
                        help="meshproxy from its sources, also where it is compiled")  # fmt: skip
    parser.add_argument("--envoy", type=Path, metavar="PATH", help="an Envoy of your own")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (1.0 if options.quick else 3.0)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _stop)
    # 2,000 idle clients and their other ends; what is started inherits it.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.interpreted:
        interpret()
    for warning in warnings():
        note(warning)
    chosen = workloads(options.workload or ())
    with tempfile.TemporaryDirectory(prefix="meshproxy-bench-") as folder, Site(Path(folder)) as site:  # fmt: skip
        race = Race(site, peers(options.peers, options.envoy))
        race.prepare(chosen)
        found = [race.run(workload, options.rounds, options.seconds) for workload in chosen]
    about = facts() | {"versions": race.versions}
    if options.output == "json":
        document: dict[str, Any] = {
            "machine": about,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "missing": race.missing,
            **as_json(found),
        }
        print(json.dumps(document, indent=2))
    else:
        print("  ".join(f"{name}: {value}" for name, value in facts().items()))
        print("  ".join(f"{name} {number}" for name, number in race.versions.items()))
        for name, why in race.missing.items():
            print(f"Without {name}: {why.splitlines()[0]}")
        print(f"\n{as_text(found)}")
    return 0 if race.sound and all(one.sound for one in found) else 1


def _stop(*_: object) -> NoReturn:
    raise SystemExit(143)  # leaves the `with` block, which ends the processes


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (MissingError, StartError) as error:
        sys.exit(f"bench: {error}")
