"""Stands where a neighbour would, and writes down what it was told."""

from collections.abc import Callable
from typing import Any

_ENDS = {
    "send_data": "send_end",
    "on_request_data": "on_request_end",
    "on_response_data": "on_response_end",
}


class Recorder:
    """
    Every call becomes a tuple in `heard`.

    An end that came with the last data is a call of its own there: tests ask what was said, not in
    how many words.
    """

    def __init__(self, protocol: str = "http") -> None:
        self.protocol = protocol
        self.address = "192.0.2.1"
        self.heard: list[tuple[Any, ...]] = []
        self.blocked = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        def hear(*arguments: Any, **named: Any) -> None:
            if name in _ENDS:
                self.heard.append((name, arguments[0]))
                if arguments[1:] == (True,):
                    self.heard.append((_ENDS[name], None))
            else:
                self.heard.append((name, *arguments, *named.values()))

        return hear

    @property
    def words(self) -> list[str]:
        """Return only the names of the calls."""
        return [call[0] for call in self.heard]
