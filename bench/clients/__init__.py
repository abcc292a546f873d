"""
Loads: programs of others where they do it better (wrk, h2load), else small ones of ours.

Each runs in a process of its own, whose CPU nobody counts.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from bench.programs import python

PREFIX = "JSON "
_ROOT = Path(__file__).parent.parent.parent  # where `python -m bench…` finds us


class LoadError(Exception):
    """A load did not do what it should; says what it has said."""


def run(command: list[str], seconds: float) -> str:
    """
    Run a load to its end and return what it has printed.

    Raises:
        LoadError: It failed, or did not end in time.
    """
    try:
        done = subprocess.run(
            command, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=seconds + 30
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{command[0]} did not end within {error.timeout:.0f} s") from None
    if done.returncode:
        raise LoadError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def ours(module: str, *arguments: object, seconds: float) -> dict[str, Any]:
    """Run a load of ours; it prints one line of JSON."""
    said = run(python(f"bench.clients.{module}", *map(str, arguments)), seconds)
    found: dict[str, Any] = json.loads(said.rpartition(PREFIX)[2])
    return found


def report(**figures: object) -> None:
    """What such a load prints at its end."""
    print(PREFIX + json.dumps(figures))
