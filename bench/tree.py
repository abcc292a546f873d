"""
Which meshproxy is measured: the sources as they stand, or what `make compiled` has made of them.

What was made of other sources, for another interpreter or not to its fastest is not used: it would
measure something else than what one sees.

    python -m bench.tree      print the sum by which `make compiled` knows that it has been here
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
COMPILED: Final = ROOT / "build" / "compiled"
_SOURCES: Final = (
    "meshproxy/**/*.py", "control_plane/**/*.py", "configs/**/*.yaml", "deploy/*.py", "bench/training.py",
    "pyproject.toml", "requirements-dev.lock",
)  # fmt: skip
_SETTING: Final = "MESHPROXY_INTERPRETED"
"""In the environment, says that the sources are wanted, whatever is compiled."""
_FASTEST: Final = "3"


def interpret() -> None:
    """Measure the sources from now on, also in the processes that are started."""
    os.environ[_SETTING] = "1"


def fingerprint(root: Path = ROOT, optimization: str = _FASTEST) -> str:
    """Return a sum of all that decides what is compiled: sources, tools, interpreter, how fast."""
    found = hashlib.sha256(f"{sys.implementation.cache_tag} -O{optimization}".encode())
    for path in sorted(path for pattern in _SOURCES for path in root.glob(pattern)):
        found.update(f"\n{path.relative_to(root)}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def state(root: Path = ROOT, compiled: Path = COMPILED) -> str:
    """Return ``compiled``, ``interpreted``, or ``stale`` where something else is compiled."""
    made = compiled / ".made"
    if os.environ.get(_SETTING) or not made.exists():
        return "interpreted"
    return "compiled" if made.read_text().strip() == fingerprint(root) else "stale"


def search_path() -> str:
    """Return where the processes of a benchmark find meshproxy, and the benchmark itself."""
    places = [COMPILED, ROOT] if state() == "compiled" else [ROOT]
    return os.pathsep.join(map(str, places))


if __name__ == "__main__":
    print(fingerprint(optimization=os.environ.get("MYPYC_OPT_LEVEL", _FASTEST)))
