"""Each lesson, shortened, with a real mesh: it goes as it says."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lessons import availability, cascade, retry_storm
from lessons.chain import LINKS, Counted
from lessons.load import Seen
from lessons.mesh import Mesh, run

ROOT = Path(__file__).parents[2]


# With a mesh --------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_slow_dependency_does_not_cascade() -> None:
    """Without policies the front falls over; with them it serves what does not need the slow one."""
    done = subprocess.run(
        [sys.executable, "-m", "lessons.cascade", "--seconds", "2.5"],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "checkouts answered" in done.stdout


@pytest.mark.integration
def test_retries_help_a_chain_and_do_not_storm() -> None:
    """
    Failures that come now and then are hidden, of a service that is down no more is asked than the
    budget allows: with the same policy.
    """
    storm, chain = retry_storm.Lesson(seconds=2), availability.Lesson(requests=400, percent=99)

    async def both(mesh: Mesh) -> None:
        await chain.work(mesh)
        await storm.work(mesh)

    run("chain", both)
    print(storm.report(), chain.report(), sep="\n\n")
    assert storm.problems() + chain.problems() == []


# Their verdicts -----------------------------------------------------------------------------------


def seen(answered: int, of: int = 100, body: bytes = b"recommended: a") -> Seen:
    return Seen(
        Counter({"200": answered, "no answer in time": of - answered}),
        [0.01] * answered,
        Counter({body: answered}),
    )


def test_the_verdict_on_the_cascade() -> None:
    """It is one only if the front falls over without policies, and stands with them."""
    lesson = cascade.Lesson(1)
    lesson.phases = {
        "healthy": cascade.Phase(seen(100), seen(100), 100),
        "without": cascade.Phase(seen(0), seen(5), 90),
        "with": cascade.Phase(seen(99, body=b"nothing recommended"), seen(100), 20),
    }
    assert lesson.problems() == []
    assert lesson.phases["with"].recommended == 0
    assert "  5.0 %" in lesson.report()

    lesson.phases["without"], lesson.phases["with"] = (
        lesson.phases["with"],
        lesson.phases["without"],
    )
    assert len(lesson.problems()) == 4


def test_the_verdict_on_the_chain() -> None:
    """Each failure of a link is one of the chain without retries, hardly any is one with them."""
    lesson = availability.Lesson(1000, 99.9)
    lesson.phases = {
        "without": availability.Phase(answered=996, failed=4, unlucky=4),
        "with": availability.Phase(answered=1000, failed=0, unlucky=5),
    }
    assert lesson.problems() == []
    assert "99.60 %" in lesson.report()

    lesson.phases = {
        "without": availability.Phase(answered=995, failed=5, unlucky=4),
        "with": availability.Phase(answered=995, failed=5, unlucky=5),
    }
    assert len(lesson.problems()) == 2


def test_the_verdict_on_the_storm() -> None:
    """Plain retries multiply, those within a budget do not."""

    def phase(*asked: int) -> retry_storm.Phase:
        counted = {link: Counted(n, n) for link, n in zip(LINKS, (0, *asked), strict=True)}
        return retry_storm.Phase(seen(0), counted)

    lesson = retry_storm.Lesson(1)
    lesson.phases = {
        "none": phase(100, 100, 100),
        "plain": phase(300, 900, 2700),
        "budgeted": phase(120, 144, 172),
    }
    assert lesson.problems() == []
    assert "27.00" in lesson.report()

    lesson.phases["plain"], lesson.phases["budgeted"] = (
        lesson.phases["budgeted"],
        lesson.phases["plain"],
    )
    assert len(lesson.problems()) == 2
