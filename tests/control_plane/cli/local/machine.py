"""A machine's ports, without the machine."""

from collections.abc import Collection


class Held:
    """A port that somebody holds."""

    def __init__(self, machine: "Machine", port: int) -> None:
        self._machine = machine
        self._port = port

    def close(self) -> None:
        self._machine.held.discard(self._port)


class Machine:
    """
    Attributes:
        free: The ports that are not taken by other programs; all where it is None.
        held: The ports that are reserved.
    """

    def __init__(self, free: Collection[int] | None = None) -> None:
        self.free = free
        self.held: set[int] = set()

    def reserve(self, port: int, *, known: bool = False) -> Held | None:
        del known
        if port in self.held or (self.free is not None and port not in self.free):
            return None
        self.held.add(port)
        return Held(self, port)
