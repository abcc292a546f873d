"""Who may begin a handshake, and when."""

import asyncio

import pytest

from meshproxy.downstream.handshakes import Handshakes


class Turns:
    """Counts those who get their turn, and how many did within one turn of the loop."""

    def __init__(self, handshakes: Handshakes) -> None:
        self.handshakes = handshakes
        self.granted = self.refused = self.most_at_once = 0
        self._at_once = 0

    async def want(self) -> None:
        if await self.handshakes.turn():
            self.granted += 1
            self._at_once += 1
        else:
            self.refused += 1

    async def watch(self) -> None:
        """Look after each turn of the loop."""
        while True:
            await asyncio.sleep(0)
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._at_once = 0


async def test_a_few_begin_in_each_turn_and_all_in_the_end() -> None:
    """However many want to at once: between two turns, who has a connection is served."""
    turns = Turns(Handshakes(asyncio.get_running_loop(), each_turn=2, most_waiting=1000))
    watching = asyncio.create_task(turns.watch())
    await asyncio.gather(*(turns.want() for _ in range(301)))
    await asyncio.sleep(0)
    watching.cancel()
    assert (turns.granted, turns.refused) == (301, 0)
    assert turns.most_at_once == 2
    assert turns.handshakes.waiting == 0


async def test_above_its_bound_the_queue_takes_nobody() -> None:
    """They are told at once; those in it are not touched, and later there is room again."""
    turns = Turns(Handshakes(asyncio.get_running_loop(), each_turn=2, most_waiting=10))
    await asyncio.gather(*(turns.want() for _ in range(100)))
    assert (turns.granted, turns.refused) == (12, 88)
    assert not turns.handshakes.full
    await turns.want()
    assert turns.granted == 13


async def test_who_gives_up_takes_nobody_s_turn() -> None:
    """Its place in the queue is free, also when it leaves in the very turn that would be its own."""
    handshakes = Handshakes(asyncio.get_running_loop(), each_turn=1, most_waiting=3)
    turns = Turns(handshakes)
    tasks = [asyncio.create_task(turns.want()) for _ in range(4)]
    await asyncio.sleep(0)
    assert (turns.granted, handshakes.full) == (1, True)
    for task in tasks[1:3]:
        task.cancel()
    await tasks[3]
    assert (turns.granted, handshakes.waiting) == (2, 0)
    for task in tasks[1:3]:
        with pytest.raises(asyncio.CancelledError):
            await task
