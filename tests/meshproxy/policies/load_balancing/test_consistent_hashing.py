"""Keys and their endpoints: what stays together, and what moves when somebody goes."""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import pytest

from meshproxy.policies.load_balancing.consistent_hashing import (
    KEYS,
    ConsistentHashing,
    Table,
    hash_of,
    remixed,
)
from meshproxy.policies.load_balancing.maglev import Maglev
from meshproxy.policies.load_balancing.ring_hash import Ring
from tests.helpers.balancing import Server, chances, picks, servers

RANDOM = Random(7)
SAMPLE = [RANDOM.randrange(KEYS) for _ in range(5_000)]

Kind = Callable[[Sequence[Server]], Table]

both = pytest.mark.parametrize("kind", [Ring, Maglev])


def owners(
    kind: Kind,
    endpoints: tuple[Server, ...],
    available: tuple[Server, ...] | None = None,
) -> list[str]:
    balancer = ConsistentHashing(kind(endpoints), endpoints, available or endpoints, chances())
    names = []
    for key in SAMPLE:
        picked = balancer.pick(None, key)
        assert picked is not None
        names.append(picked.name)
    return names


@both
def test_all_proxies_agree(kind: Kind) -> None:
    """Whatever the order in which they have heard of the endpoints."""
    all_ = servers(1, 2, 3, 1, 1)
    assert owners(kind, all_) == owners(kind, all_[::-1])


@both
@pytest.mark.parametrize("many", [3, 20])
def test_an_endpoint_that_goes_moves_little_else(kind: Kind, many: int) -> None:
    """Its own keys go to the others; with a ring no other key moves, with Maglev a few do."""
    all_ = servers(*[1] * many)
    before, after = owners(kind, all_), owners(kind, all_[1:])
    moved = sum(a != b for a, b in zip(before, after, strict=True) if a != all_[0].name)
    assert moved / len(SAMPLE) <= (0.0 if kind is Ring else 0.06)
    heirs = Counter(b for a, b in zip(before, after, strict=True) if a == all_[0].name)
    assert len(heirs) > 0.8 * (many - 1)  # and not all of them to one


@both
def test_an_endpoint_that_comes_takes_only_for_itself(kind: Kind) -> None:
    """Nearly all keys that move, move to the new one, and not more than its share of them."""
    all_ = servers(*[1] * 10)
    before, after = owners(kind, all_[1:]), owners(kind, all_)
    moves = [b for a, b in zip(before, after, strict=True) if a != b]
    to_others = sum(name != all_[0].name for name in moves)
    assert to_others / len(SAMPLE) <= (0.0 if kind is Ring else 0.06)
    assert len(moves) / len(SAMPLE) < 0.2


@both
def test_an_ejected_endpoint_gets_its_keys_back(kind: Kind) -> None:
    """While it is out, its keys are spread over the others; nobody else's key moves at all."""
    all_ = servers(1, 1, 1, 1)
    before, during = owners(kind, all_), owners(kind, all_, all_[1:])
    pairs = list(zip(before, during, strict=True))
    assert all(a == b for a, b in pairs if a != all_[0].name)
    heirs = Counter(b for a, b in pairs if a == all_[0].name)
    assert set(heirs) == {server.name for server in all_[1:]}
    assert max(heirs.values()) < 2 * min(heirs.values())


@both
def test_a_retry_goes_elsewhere_and_the_next_request_back(
    kind: Kind,
) -> None:
    """The second endpoint of a key is always the same, too."""
    all_ = servers(1, 1, 1)
    balancer = ConsistentHashing(kind(all_), all_, all_, chances())
    first = balancer.pick(None, 42)
    assert first is not None
    second = {balancer.pick((first,), 42) for _ in range(5)}
    assert first not in second
    assert len(second) == 1
    assert balancer.pick(None, 42) is first


@both
def test_without_a_key_any_endpoint_will_do(kind: Kind) -> None:
    """Requests that have nothing to be hashed are spread."""
    all_ = servers(1, 1, 1)
    counts = picks(ConsistentHashing(kind(all_), all_, all_, chances()), 3_000)
    assert min(counts[server] for server in all_) > 700


def test_a_hash_is_the_same_everywhere() -> None:
    """And after an update of ours: sessions of users hang on it."""
    assert hash_of(b"alice") == 0x4DEAEC0CCE54DA89
    assert remixed(0) == 0xE220A8397B1DCDAF


def test_remixing_is_a_permutation_that_looks_random() -> None:
    """Neighbours end up anywhere."""
    mixed = [remixed(key) for key in range(10_000)]
    assert len(set(mixed)) == 10_000
    assert abs(sum(key < KEYS // 2 for key in mixed) - 5_000) < 300
