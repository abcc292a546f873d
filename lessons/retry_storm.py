"""
The lesson of the retry storm: what becomes of a service that fails when everybody asks again.

    make lesson-retry-storm        or  python -m lessons.retry_storm [--seconds 5]

Exit code 0 if it went as the lesson says, 1 if not.
"""

import argparse
import asyncio
import sys
from dataclasses import dataclass

from lessons.chain import LINKS, Counted, fail
from lessons.load import Seen, visit
from lessons.mesh import Mesh
from lessons.side_by_side import percent, table
from lessons.verdict import judged

FIRST, MIDDLE, LAST = LINKS[1:]
"""Three services in a chain; visitors call the first."""
CALLERS = ("visitors", FIRST, MIDDLE)

RATE = 12.0
PATIENCE = 20.0
TRIES = 3
BUDGET = 1.2
"""What 20 % of retries make of a request at each hop."""
INTERVAL = 1.0
"""Seconds over which the budget counts (`budget.interval`)."""
AT_LEAST = 1
"""Retries a second that are always allowed (`minRetryRate`)."""


@dataclass
class Phase:
    seen: Seen
    counted: dict[str, Counted]

    def load(self, link: str) -> float:
        """Return how often a link was asked for each request from outside."""
        return self.counted[link].asked / self.seen.outcomes.total()


class Lesson:
    """
    Attributes:
        phases: What came of it: `none` (no retries), `plain` and `budgeted`.
    """

    def __init__(self, seconds: float) -> None:
        self.phases: dict[str, Phase] = {}
        self._seconds = seconds

    async def work(self, mesh: Mesh) -> None:
        await mesh.obey(None, *CALLERS)
        print(f"{LAST} fails always, and nobody asks again …", flush=True)
        self.phases["none"] = await self._visit(mesh)
        await mesh.obey("policies-plain.yaml", *CALLERS)
        print(
            "Every hop tries three times (configs/lessons/chain/policies-plain.yaml) …", flush=True
        )
        self.phases["plain"] = await self._visit(mesh)
        await mesh.obey("policies-retries.yaml", *CALLERS)
        print(
            "The same within a budget (configs/lessons/chain/policies-retries.yaml) …", flush=True
        )
        self.phases["budgeted"] = await self._visit(mesh)

    async def _visit(self, mesh: Mesh) -> Phase:
        await asyncio.sleep(INTERVAL)  # then no budget knows of the run before
        await fail(mesh, **{LAST: 1})
        seen = await visit({"page": mesh.service(FIRST)}, RATE, self._seconds, PATIENCE)
        return Phase(seen["page"], await fail(mesh))

    @property
    def bound(self) -> float:
        """Return how often the last may be asked for each request, when each hop keeps its budget."""
        asked = 1.0
        for _ in range(3):
            asked += max(asked * (BUDGET - 1), AT_LEAST / RATE)
        return asked

    def report(self) -> str:
        """Return the figures side by side."""
        phases = [self.phases[name] for name in ("none", "plain", "budgeted")]
        return table(
            f"requests for each one from outside ({RATE:g}/s)",
            ("no retries", f"{TRIES} tries at each hop", "with a budget"),
            [
                *((f"that {link} gets", *(f"{p.load(link):.2f}" for p in phases))
                  for link in (FIRST, MIDDLE, LAST)),
                (f"at most, at {LAST}", "1", f"{TRIES**3}", f"{self.bound:.2f}"),
                ("answered", *(percent(p.seen.answered) for p in phases)),
            ],
        )  # fmt: skip

    def problems(self) -> list[str]:
        """Return what did not go as the lesson says."""
        none, plain, budgeted = (self.phases[name] for name in ("none", "plain", "budgeted"))
        expected = [
            (none.load(LAST) == 1, "somebody has asked again without a policy"),
            (plain.load(LAST) > TRIES**2, "plain retries did not multiply"),
            (budgeted.load(LAST) <= self.bound, "more was asked than the budgets allow"),
        ]
        return [problem for held, problem in expected if not held]


def main() -> int:
    parser = argparse.ArgumentParser(
        description="What becomes of a service that fails when everybody asks again?"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run (default: 5)")
    lesson = Lesson(parser.parse_args().seconds)
    return judged("chain", lesson)


if __name__ == "__main__":
    sys.exit(main())
