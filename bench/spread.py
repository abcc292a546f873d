"""
What the window of many endpoints does to those who are asked: a simulation, by events, without noise.

    python -m bench.spread

Proxies, each with a balancer of its own (the product's), send requests to the same servers: Poisson's
arrivals, exponential service, each server one request after the other.  With the window
(`policies/load_balancing/moving_window.py`) and without, at the same chances:

    answers      how long they take, in units of the service time: mean, and 99th percentile
    one second   requests of a server in a second: standard deviation and greatest, the mean being 1
    ten seconds  the same for ten
    slow         the part of a fair share that servers get that are ten times slower (where there are)
"""

import argparse
import heapq
import random
from collections import deque
from statistics import fmean, pstdev
from typing import Any, Final

from meshproxy.contract.policies import LoadBalancingSpec
from meshproxy.policies.load_balancing.balancing import Balancing
from meshproxy.policies.load_balancing.endpoint import Endpoint
from meshproxy.policies.load_balancing.peak_ewma import observe

from .quick import table

SECONDS: Final = 12
"""Of which the first two are not counted."""


class Seen(Endpoint):
    """A server as one proxy sees it."""

    __slots__ = ("server",)

    def __init__(self, server: int) -> None:
        self.name = str(server)
        self.server = server
        self.weight = 1
        self.priority = 0
        self.since = self.measured = float("-inf")
        self.active = 0
        self.latency = 0.0


class Mesh:
    """So many proxies, so many servers, so much to do."""

    def __init__(
        self,
        spec: LoadBalancingSpec,
        *,
        proxies: int,
        servers: int,
        rate: float,
        busy: float,
        slow: int = 0,
        window: bool,
    ) -> None:
        """
        Args:
            spec: How proxies choose.
            proxies: How many.
            servers: How many.
            rate: Requests per second of each proxy.
            busy: What part of the time servers work.
            slow: How many of them take ten times as long.
            window: Whether proxies have one.
        """
        self.now = 0.0
        self._rate = rate
        self._random = random.Random(1)
        self._service = busy * servers / (proxies * rate)
        self._slow = slow
        self._observes = spec.algorithm == "peak-ewma"
        self._picks = []
        for _ in range(proxies):
            seen = tuple(map(Seen, range(servers)))
            balancer: Any = Balancing[Seen](spec, self._random.random, self._clock).among(
                seen, seen
            )
            assert balancer._window is not None, "too few servers for a window"  # noqa: SLF001
            if not window:
                balancer._window = None  # noqa: SLF001
            self._picks.append(balancer.pick)
        self._waiting: list[deque[tuple[Seen, float]]] = [deque() for _ in range(servers)]
        self.counts = [[0] * servers for _ in range(SECONDS)]
        self.answers: list[float] = []

    def _clock(self) -> float:
        return self.now

    def run(self) -> None:
        """Let the time pass."""
        chance, mean = self._random.expovariate, 1 / self._rate
        # When, which proxy sends or -1, and the server that has done one.
        events = [(chance(1) * mean, proxy, 0) for proxy in range(len(self._picks))]
        heapq.heapify(events)
        while events[0][0] < SECONDS:
            now, proxy, server = events[0]
            self.now = now
            if proxy < 0:
                queue = self._waiting[server]
                self._answer(*queue.popleft())
                if queue:
                    heapq.heapreplace(events, (now + self._work(server), -1, server))
                else:
                    heapq.heappop(events)
                continue
            heapq.heapreplace(events, (now + chance(1) * mean, proxy, 0))
            picked = self._picks[proxy](None)
            picked.active += 1
            server = picked.server
            self.counts[int(now)][server] += 1
            queue = self._waiting[server]
            queue.append((picked, now))
            if len(queue) == 1:
                heapq.heappush(events, (now + self._work(server), -1, server))

    def _work(self, server: int) -> float:
        slower = 10 if server < self._slow else 1
        return self._random.expovariate(1) * self._service * slower

    def _answer(self, seen: Seen, began: float) -> None:
        seen.active -= 1
        took = self.now - began
        if self._observes:
            observe(seen, took, self.now)
        if began > 2:
            self.answers.append(took / self._service)

    def figures(self) -> list[str]:
        """Return what there is to say."""
        answers = sorted(self.answers)
        seconds = self.counts[2:]
        ten = [sum(counts) for counts in zip(*seconds, strict=True)]
        mean = fmean(ten) / len(seconds)
        slow = fmean(ten[: self._slow]) / fmean(ten) if self._slow else None
        return [
            f"{fmean(answers):.2f}",
            f"{answers[len(answers) * 99 // 100]:.1f}",
            f"{fmean(map(pstdev, seconds)) / mean:.2f}",
            f"{fmean(map(max, seconds)) / mean:.2f}",
            f"{pstdev(ten) / mean / len(seconds):.2f}",
            f"{max(ten) / mean / len(seconds):.2f}",
            "" if slow is None else f"{slow:.2f}",
        ]


CASES: Final[list[tuple[str, dict[str, Any]]]] = [
    ("busy 0.1", {"proxies": 20, "servers": 1_000, "rate": 2_000, "busy": 0.1}),
    ("busy 0.1, 100 to 5,000", {"proxies": 100, "servers": 5_000, "rate": 2_000, "busy": 0.1}),
    ("busy 0.5", {"proxies": 20, "servers": 1_000, "rate": 2_000, "busy": 0.5}),
    ("busy 0.8", {"proxies": 20, "servers": 1_000, "rate": 2_000, "busy": 0.8}),
    ("busy 0.5, few requests", {"proxies": 100, "servers": 1_000, "rate": 50, "busy": 0.5}),
    ("busy 0.2, one in 100 slow", {"proxies": 20, "servers": 1_000, "rate": 2_000, "busy": 0.2, "slow": 10}),
]  # fmt: skip


def main() -> None:
    argparse.ArgumentParser(
        prog="bench.spread", description=(__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()  # fmt: skip
    rows = [["", "window", "mean", "99 %", "sd 1 s", "max", "sd 10 s", "max", "slow"]]
    for spec in (LoadBalancingSpec(), LoadBalancingSpec(algorithm="least-request")):
        for name, case in CASES:
            for window in (False, True):
                mesh = Mesh(spec, window=window, **case)
                mesh.run()
                name_ = f"{spec.algorithm}, {name}"
                rows.append([name_, "yes" if window else "no", *mesh.figures()])
    print(table(rows))


if __name__ == "__main__":
    main()
