"""
The lesson of the cascade: one dependency turns slow, and what becomes of everything else.

    make lesson-cascade        or  python -m lessons.cascade [--seconds 8]

Exit code 0 if it went as the lesson says, 1 if not.
"""

import argparse
import asyncio
import sys
from dataclasses import dataclass

import aiohttp

from lessons.load import Seen, visit
from lessons.mesh import Mesh
from lessons.side_by_side import milliseconds, percent, table
from lessons.verdict import judged

RATE = 60.0
"""Requests a second: half of them for the page, half for the checkout."""
PATIENCE = 1.0
"""Seconds after which a visitor has gone to another shop."""
DELAY = 3.0
"""Seconds that the ranking takes once it is slow."""
ADVICE = b"recommended:"


@dataclass
class Phase:
    """
    Attributes:
        asked: How often the ranking was asked.
    """

    page: Seen
    checkout: Seen
    asked: int

    @property
    def recommended(self) -> float:
        """Return the share of the pages that had recommendations, in percent."""
        total = self.page.bodies.total()
        full = sum(n for body, n in self.page.bodies.items() if ADVICE in body)
        return 100 * full / total if total else 0.0


class Lesson:
    """
    Attributes:
        phases: What was seen: `healthy`, then `without` and `with` policies while the ranking is slow.
    """

    def __init__(self, seconds: float) -> None:
        self.phases: dict[str, Phase] = {}
        self._seconds = seconds

    async def work(self, mesh: Mesh) -> None:
        print(f"All is well, for {self._seconds / 2:g} s …", flush=True)
        self.phases["healthy"] = await self._visit(mesh, 0, self._seconds / 2)
        print(f"The ranking takes {DELAY:g} s, and nobody does anything about it …", flush=True)
        self.phases["without"] = await self._visit(mesh, DELAY, self._seconds)
        await self._recovered(mesh)
        await mesh.obey("policies.yaml", "front", "recommendations")
        print("The same, with configs/lessons/cascade/policies.yaml in force …", flush=True)
        self.phases["with"] = await self._visit(mesh, DELAY, self._seconds)

    async def _visit(self, mesh: Mesh, delay: float, seconds: float) -> Phase:
        front = mesh.service("front")
        await set_delay(mesh, delay)
        urls = {"page": f"{front}/", "checkout": f"{front}/checkout"}
        seen = await visit(urls, RATE, seconds, PATIENCE)
        return Phase(seen["page"], seen["checkout"], await set_delay(mesh, 0))

    async def _recovered(self, mesh: Mesh) -> None:
        """Wait until what has piled up has been worked off."""
        async with (
            asyncio.timeout(120),
            aiohttp.ClientSession() as session,
            session.get(f"{mesh.service('front')}/") as answer,
        ):
            await answer.read()

    def report(self) -> str:
        """Return the figures side by side."""
        phases = [self.phases[name] for name in ("healthy", "without", "with")]
        return table(
            f"visitors with {PATIENCE:g} s of patience",
            ("all is well", "slow, without policies", "slow, with policies"),
            [
                ("checkouts answered", *(percent(p.checkout.answered) for p in phases)),
                ("pages answered", *(percent(p.page.answered) for p in phases)),
                ("  of these with recommendations", *(percent(p.recommended) for p in phases)),
                ("checkout, median", *(milliseconds(p.checkout.latency(0.5)) for p in phases)),
                ("checkout, 99 of 100", *(milliseconds(p.checkout.latency(0.99)) for p in phases)),
                ("calls of the ranking", *(str(p.asked) for p in phases)),
            ],
        )

    def problems(self) -> list[str]:
        """Return what did not go as the lesson says."""
        healthy, without, held = (self.phases[name] for name in ("healthy", "without", "with"))
        expected = [
            (healthy.page.answered > 99, "not every page was answered while all was well"),
            (healthy.recommended > 99, "recommendations were missing while all was well"),
            (without.checkout.answered < 50, "the front did not fall over without policies"),
            (held.checkout.answered > 95, "checkouts were not answered with policies"),
            (held.page.answered > 90, "pages were not answered with policies"),
            (held.asked < without.asked, "the ranking was not left alone with policies"),
        ]
        return [problem for held, problem in expected if not held]


async def set_delay(mesh: Mesh, seconds: float) -> int:
    """Let the ranking take so long from now on; return how often it was asked before."""
    url = f"{mesh.app('ranking')}/delay/{seconds}"
    async with aiohttp.ClientSession() as session, session.put(url) as answer:
        return int(await answer.text())


def main() -> int:
    parser = argparse.ArgumentParser(
        description="One dependency turns slow: what becomes of the rest?"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each phase (default: 8)")
    lesson = Lesson(parser.parse_args().seconds)
    return judged("cascade", lesson)


if __name__ == "__main__":
    sys.exit(main())
