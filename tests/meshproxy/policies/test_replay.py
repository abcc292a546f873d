"""Kept bodies: how much there may be of them, and that all of it is given back."""

from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policies.replay import PIECES, Kept, ReplayMemory


def test_what_is_kept_is_counted_until_nobody_has_it() -> None:
    """There is no other way to give it back, so none can be forgotten."""
    memory = ReplayMemory(100)
    kept = memory.keep([b"x" * 60], 60)
    other = memory.keep([b"y" * 40], 40)
    assert (kept, other, memory.held) == ([b"x" * 60], [b"y" * 40], 100)
    del kept
    assert memory.held == 40
    del other
    assert memory.held == 0


def test_only_what_has_come_since_is_added() -> None:
    """The same body is counted once, however often somebody asks to keep it."""
    memory = ReplayMemory(100)
    kept = memory.keep([b"x" * 60], 60)
    assert kept is not None
    assert memory.keep(kept, 60) is kept
    kept.append(b"y" * 40)
    assert memory.keep(kept, 100) is kept
    assert memory.held == 100


def test_what_has_no_room_is_not_kept() -> None:
    """And what is kept already is given back once it has been let go of."""
    memory = ReplayMemory(100)
    kept = memory.keep([b"x" * 60], 60)
    assert memory.keep([b"y" * 41], 41) is None
    assert memory.held == 60
    assert kept is not None
    kept.append(b"z" * 41)
    kept = memory.keep(kept, 101)
    assert kept is None
    assert memory.held == 0


def test_without_memory_to_spare_nothing_is_kept() -> None:
    """However little it is."""
    crowded = True
    memory = ReplayMemory(100, lambda: crowded)
    assert memory.keep([b"x"], 1) is None
    crowded = False
    assert memory.keep([b"x"], 1) is not None


def test_small_pieces_are_joined() -> None:
    """Each byte is moved once, however many there are."""
    memory = ReplayMemory(1 << 20)
    body: list[bytes] = []
    said = b""
    for number in range(10 * PIECES):
        piece = b"%d " % number
        body.append(piece)
        said += piece
        kept = memory.keep(body, len(said))
        assert kept is not None
        body = kept
    assert b"".join(body) == said
    assert len(body) <= PIECES + 10
    assert isinstance(body, Kept)
    assert body.joined == 10


@given(
    st.integers(0, 300),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 120), st.booleans()), max_size=60),
)
def test_there_is_never_more_than_may_be(most: int, steps: list[tuple[int, int, bool]]) -> None:
    """Whoever grows and whoever ends, in whatever order: the sum is that of what is kept."""
    memory = ReplayMemory(most)
    bodies: dict[int, list[bytes]] = {}
    for who, size, ends in steps:
        body = bodies.pop(who, [])
        body.append(b"x" * size)
        kept = memory.keep(body, sum(map(len, body)))
        del body
        if kept is not None and not ends:
            bodies[who] = kept
        del kept
        assert memory.held == sum(len(piece) for one in bodies.values() for piece in one) <= most
    bodies.clear()
    assert memory.held == 0
