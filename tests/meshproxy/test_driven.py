"""Coroutines of the loop's, driven by hand."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from meshproxy.driven import Driven
from tests.helpers.environment import until


class Driver:
    """
    Drives a coroutine.

    Attributes:
        ends: By what it has ended, once it has.
    """

    def __init__(self, coroutine: Coroutine[Any, None, object]) -> None:
        self.ends: list[Exception | None] = []
        self.driven = Driven(asyncio.get_running_loop(), coroutine, self._on_end)

    def _on_end(self, driven: Driven, error: Exception | None) -> None:
        assert driven is self.driven
        self.ends.append(error)


@pytest.mark.parametrize("waits", [0, 1, 2])
async def test_it_goes_on_whenever_a_future_is_done(waits: int) -> None:
    """However often it waits; that it has ended is said later."""
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(waits)]
    seen: list[int] = []

    async def wait() -> None:
        for future in futures:
            seen.append(await future)

    driver = Driver(wait())
    assert driver.ends == []
    for number, future in enumerate(futures):
        assert driver.ends == []
        future.set_result(number)
        await until(lambda: len(seen) == number + 1)  # noqa: B023
    await until(lambda: driver.ends == [None])
    assert seen == list(range(waits))
    driver.driven.cancel()
    assert driver.ends == [None]


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("error", [OSError("gone"), ValueError("no address")])
async def test_a_failure_is_told_later(error: Exception, early: bool) -> None:
    """Also one that it runs into at once."""
    future = asyncio.get_running_loop().create_future()

    async def fail() -> None:
        if early:
            raise error
        await future

    driver = Driver(fail())
    assert driver.ends == []
    future.set_exception(error)
    await until(lambda: driver.ends == [error])
    future.exception()


@pytest.mark.parametrize("done", [False, True])
async def test_who_is_cancelled_cleans_up_and_says_nothing(done: bool) -> None:
    """Whether or not what it waits for has just come."""
    future = asyncio.get_running_loop().create_future()
    left: list[str] = []

    async def wait() -> None:
        try:
            await future
        finally:
            left.append("clean")

    driver = Driver(wait())
    if done:
        future.set_result(None)
    driver.driven.cancel()
    assert future.cancelled() != done  # so that nobody leaves in it what nobody would look at
    await until(lambda: left == ["clean"])
    driver.driven.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert driver.ends == []


@pytest.mark.parametrize("early", [True, False])
async def test_a_mistake_is_not_hidden(early: bool) -> None:
    """Only what the network does is an ordinary end; but an end is what a mistake is, too."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    complaints: list[object] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context["exception"]))
    error = KeyError("mine")
    ends: list[Exception | None] = []

    async def mistaken() -> None:
        if not early:
            await future
        raise error

    def drive() -> Driven:
        return Driven(loop, mistaken(), lambda _, error: ends.append(error))

    if early:
        with pytest.raises(KeyError):
            drive()
    else:
        drive()
        future.set_result(None)
    await until(lambda: ends == [error])
    assert complaints == ([] if early else [error])
