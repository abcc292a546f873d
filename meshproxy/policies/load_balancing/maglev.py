"""
Maglev: a table in which each endpoint has its share of places, exactly.

Each endpoint has an order of its own in which it likes the places of the table (from two hashes of
its name), and they take turns: each takes the first place of its order that is still free, until
the table is full (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer",
2016, section 3.4).  Shares are equal to within one place; who has half the weight of
another takes every second turn.  A key finds its place by one division.

When an endpoint goes, its places are taken by the others, and of theirs a few change hands, too: a
few in a hundred.  That is the price against `ring_hash`, whose shares are less even.  The size is a
prime, so that every order visits all places; 16381 makes shares even to 1 % for up to 160 endpoints
(the paper's rule of a hundred places each) and takes 10 to 25 ms to compute.
"""

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from math import isqrt
from typing import Final

from .endpoint import E

SIZE: Final = 16_381


class Maglev:
    """See `consistent_hashing.Table`."""

    __slots__ = ("_size", "owners")

    def __init__(self, endpoints: Sequence[E], size: int | None = None) -> None:
        """With `size` places, or as many as the next prime above it."""
        self._size = size = _prime(SIZE if size is None else max(size, 2))
        # Turns are taken in the order of names, or each proxy would fill the table differently.
        weighted = [number for number, e in enumerate(endpoints) if e.weight]
        weighted.sort(key=lambda number: endpoints[number].name)
        self.owners = array("I", _filled(endpoints, weighted, size)) if weighted else array("I")

    def place(self, key: int) -> int:
        return key % self._size


def _filled(endpoints: Sequence[E], numbers: Sequence[int], size: int) -> list[int]:
    heaviest = max(endpoints[number].weight for number in numbers)
    free = -1
    table = [free] * size
    turns: list[tuple[int, int, int, int]] = []  # number, weight, skip, place in `positions`
    positions: list[int] = []
    for number in numbers:
        digest = blake2b(endpoints[number].name.encode(), digest_size=16).digest()
        offset, skip = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
        turns.append((number, endpoints[number].weight, 1 + skip % (size - 1), len(positions)))
        positions.append(offset % size)
    credit = [0] * len(numbers)
    left = size
    while True:
        for number, weight, skip, at in turns:
            if weight != heaviest:
                credit[at] += weight
                if credit[at] < heaviest:
                    continue
                credit[at] -= heaviest
            place = positions[at]
            while table[place] != free:
                place += skip
                if place >= size:
                    place -= size
            table[place] = number
            positions[at] = place
            left -= 1
            if not left:
                return table


def _prime(number: int) -> int:
    """Return the first prime that is not less."""
    while any(number % divisor == 0 for divisor in range(2, isqrt(number) + 1)):
        number += 1
    return number
