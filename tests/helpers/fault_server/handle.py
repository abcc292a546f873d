"""The fault server as a test holds it: started, asked, and ended."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.helpers.ports import free_port

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Counts:
    """What `Ledger` has counted, by id."""

    received: Mapping[str, int]
    executed: Mapping[str, int]
    elsewhere: Mapping[str, int]
    abandoned: Mapping[str, int]
    connections: int


class FaultServer:
    """
    A process of its own; `with` starts and ends it.

    Attributes:
        port: Of its first endpoint.
        twin: Of the second, which always serves.
        ill: Of the third, which serves and says that it is not well.
    """

    def __init__(self) -> None:
        self.port, self.twin, self.ill = free_port(), free_port(), free_port()
        self._process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.helpers.fault_server", "--ports"),
                *(str(port) for port in (self.port, self.twin, self.ill)),
            ],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._hear() == {"port": self.port}
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.stdout.close()

    def mode(self, mode: str) -> None:
        """Serve, or be `closed`, `reset`, `silent` or talk `nonsense` (`control.py`)."""
        assert self._order(mode=mode) == {"mode": mode}

    def hang_up(self) -> int:
        """Reset every connection that is open; return how many these were."""
        return int(self._order(**{"hang up": True})["hung up"])

    def counts(self) -> Counts:
        return Counts(**self._order(counts=True))

    def forget(self) -> None:
        """Count from zero."""
        self._order(forget=True)

    def heal(self) -> None:
        """Let the one that is ill be well."""
        self._order(heal=True)

    def _order(self, **order: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the fault server ended with {self._process.wait(10)}"
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer
