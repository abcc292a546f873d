"""
The lesson of the chain: four services that are there 99.9 % of the time make one that is not.

    make lesson-availability        or  python -m lessons.availability [--requests 10000]

Exit code 0 if it went as the lesson says, 1 if not.
"""

import argparse
import asyncio
import itertools
import sys
from dataclasses import dataclass

import aiohttp

from lessons.chain import LINKS, fail
from lessons.load import trace
from lessons.mesh import Mesh
from lessons.side_by_side import table
from lessons.verdict import judged

CALLERS = ("visitors", *LINKS[:-1])
AT_ONCE = 16


@dataclass
class Phase:
    """
    Attributes:
        answered: Requests that were answered with 200.
        failed: The others.
        unlucky: How often a link failed.
    """

    answered: int = 0
    failed: int = 0
    unlucky: int = 0

    @property
    def availability(self) -> str:
        return f"{100 * self.answered / (self.answered + self.failed):.2f} %"


class Lesson:
    """
    Attributes:
        phases: What came of it, `without` policies and `with`.
    """

    def __init__(self, requests: int, percent: float) -> None:
        """
        Prepare it.

        Args:
            requests: In each of the two runs.
            percent: How often each service by itself does what it should.
        """
        self.phases: dict[str, Phase] = {}
        self._requests = requests
        self._alone = percent / 100

    async def work(self, mesh: Mesh) -> None:
        await mesh.obey(None, *CALLERS)
        failing = f"each of four services fails {100 * (1 - self._alone):g} % of the times"
        print(f"{self._requests} requests; {failing} …", flush=True)
        self.phases["without"] = await self._ask(mesh, range(self._requests))
        await mesh.obey("policies-retries.yaml", *CALLERS)
        print("The same, with configs/lessons/chain/policies-retries.yaml in force …", flush=True)
        self.phases["with"] = await self._ask(mesh, range(self._requests, 2 * self._requests))

    async def _ask(self, mesh: Mesh, ids: range) -> Phase:
        url, phase, left = mesh.service(LINKS[0]), Phase(), iter(ids)

        async def client(session: aiohttp.ClientSession) -> None:
            for number in left:
                async with session.get(url, headers={"x-id": str(number), **trace()}) as answer:
                    await answer.read()
                    phase.answered += answer.status == 200
                    phase.failed += answer.status != 200

        await fail(mesh, **dict.fromkeys(LINKS, 1 - self._alone))
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as clients:
            for _ in itertools.repeat(None, AT_ONCE):
                clients.create_task(client(session))
        phase.unlucky = sum(link.failed for link in (await fail(mesh)).values())
        return phase

    def report(self) -> str:
        """Return the figures side by side."""
        without, held = self.phases["without"], self.phases["with"]
        chain = self._alone ** len(LINKS)
        failures = f"{self._requests * (1 - chain):.0f}"
        return table(
            "four services in a chain",
            ("expected, without", "without policies", "with policies"),
            [
                ("failures of one of them", failures, str(without.unlucky), str(held.unlucky)),
                ("requests that failed", failures, str(without.failed), str(held.failed)),
                ("answered", f"{100 * chain:.2f} %", without.availability, held.availability),
            ],
        )

    def problems(self) -> list[str]:
        """Return what did not go as the lesson says."""
        without, held = self.phases["without"], self.phases["with"]
        expected = [
            (without.unlucky > 0, "nothing has failed: ask more often"),
            # To the last one: the mesh neither hides a failure nor adds one.
            (without.failed == without.unlucky, "not each failure was one of the whole chain"),
            (held.unlucky > 0, "nothing has failed with policies: ask more often"),
            # What is left are failures of the same link twice in a row.
            (held.failed <= held.unlucky / 10, "retries did not hide failures"),
        ]
        return [problem for held, problem in expected if not held]


def main() -> int:
    parser = argparse.ArgumentParser(description="What is the availability of a chain of services?")
    parser.add_argument("--requests", type=int, default=10_000, help="in each run (default: 10000)")
    parser.add_argument(
        "--percent", type=float, default=99.9, help="availability of each service (default: 99.9)"
    )
    arguments = parser.parse_args()
    lesson = Lesson(arguments.requests, arguments.percent)
    return judged("chain", lesson)


if __name__ == "__main__":
    sys.exit(main())
