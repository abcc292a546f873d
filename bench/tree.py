"""
Which meshproxy is measured: the sources as they stand, or what `make compiled` has made of them.

A compiled tree that is older than a source is not used: it would measure yesterday's code.
"""

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
COMPILED: Final = ROOT / "build" / "compiled"
_SETTING: Final = "MESHPROXY_INTERPRETED"
"""In the environment, says that the sources are wanted, whatever is compiled."""


def interpret() -> None:
    """Measure the sources from now on, also in the processes that are started."""
    os.environ[_SETTING] = "1"


def state(root: Path = ROOT, compiled: Path = COMPILED) -> str:
    """Return ``compiled``, ``interpreted``, or ``stale`` where something is compiled, but not this."""
    made = compiled / ".made"
    if os.environ.get(_SETTING) or not made.exists():
        return "interpreted"
    newest = max(path.stat().st_mtime for path in (root / "meshproxy").rglob("*.py"))
    return "compiled" if newest <= made.stat().st_mtime else "stale"


def search_path() -> str:
    """Return where the processes of a benchmark find meshproxy, and the benchmark itself."""
    places = [COMPILED, ROOT] if state() == "compiled" else [ROOT]
    return os.pathsep.join(map(str, places))
