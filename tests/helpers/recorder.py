"""Stands where a neighbour would, and writes down what it was told."""

from collections.abc import Callable
from typing import Any


class Recorder:
    """Every call becomes a tuple in `heard`."""

    def __init__(self, protocol: str = "http") -> None:
        self.protocol = protocol
        self.heard: list[tuple[Any, ...]] = []
        self.blocked = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        def hear(*arguments: Any, **named: Any) -> None:
            self.heard.append((name, *arguments, *named.values()))

        return hear

    @property
    def words(self) -> list[str]:
        """Return only the names of the calls."""
        return [call[0] for call in self.heard]
