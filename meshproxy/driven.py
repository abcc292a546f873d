"""
A coroutine of the loop's, driven by hand: what `await` in a task would do, without the task.

`loop.create_connection` and `loop.connect_accepted_socket` wait but once or twice, and their protocol is
told by the loop, whoever waits for the coroutine.  A task for each would cost three more
callbacks and itself: of what a short opaque connection takes of a sidecar, a tenth.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

Steps = Coroutine[Any, None, object]
Ended = Callable[["Driven", Exception | None], None]


_OVER: Final = object()


class Driven:
    """
    Goes on with a coroutine whenever the future that it waits for is done.

    For coroutines that need no current task (`asyncio.timeout` does).
    """

    __slots__ = ("_awaited", "_coroutine", "_ended", "_steps")

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Steps, ended: Ended) -> None:
        """
        Take the first step; `ended` is called later, never now, and not after `cancel`.

        Args:
            loop: The loop.
            coroutine: What is to be done.
            ended: Is told the error by which it has failed, or None.
        """
        self._coroutine: Steps | None = coroutine
        self._ended = ended
        self._awaited: Any = None
        # Not `coroutine.send`: its StopIteration would be caught here, at the price of a traceback.
        self._steps: Iterator[Any] = iter(coroutine.__await__())
        try:
            awaited: Any = next(self._steps, _OVER)
        except (OSError, ValueError) as error:
            loop.call_soon(self._end, error)
        else:
            if awaited is _OVER:
                loop.call_soon(self._end, None)
            else:
                self._awaited = awaited
                awaited.add_done_callback(self._step)

    def cancel(self) -> None:
        """End it where it is; what it has begun, it gives back."""
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is not None:
            if self._awaited is not None:
                self._awaited.cancel()  # who would have set it, sees that nobody waits
            coroutine.close()

    def _step(self, done: object) -> None:  # noqa: ARG002  # the callback's shape
        if self._coroutine is None:
            return
        try:
            awaited: Any = next(self._steps, _OVER)  # asks the future for what has become of it
        except (OSError, ValueError) as error:
            self._end(error)
        else:
            if awaited is _OVER:
                self._end(None)
            else:
                self._awaited = awaited
                awaited.add_done_callback(self._step)

    def _end(self, error: Exception | None) -> None:
        if self._coroutine is not None:
            self._coroutine = None
            self._ended(self, error)
