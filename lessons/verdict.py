"""From the run of a lesson to what is printed, and to its exit code."""

import sys
from typing import Protocol

from control_plane.cli.errors import CommandError
from lessons.mesh import Mesh, run


class Lesson(Protocol):
    """What is done with a mesh, and what came of it."""

    async def work(self, mesh: Mesh) -> None: ...
    def report(self) -> str: ...
    def problems(self) -> list[str]: ...


def judged(folder: str, lesson: Lesson) -> int:
    """
    Run a lesson, print what came of it, and return 0 if it went as the lesson says, otherwise 1.

    Args:
        folder: Of `configs/lessons/`, with its mesh.
        lesson: What to do with it.
    """
    try:
        run(folder, lesson.work)
    except CommandError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\n{lesson.report()}\n")
    problems = lesson.problems()
    for problem in problems:
        print(f"Not as the lesson says: {problem}.", file=sys.stderr)
    return 1 if problems else 0
