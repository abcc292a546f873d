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


ORDINARY: Final = (OSError, ValueError)
"""What may well happen to who dials or accepts."""

_OVER: Final = object()


class Driven:
    """
    Goes on with a coroutine whenever the future that it waits for is done.

    For coroutines that need no current task (`asyncio.timeout` does).
    """

    __slots__ = ("_awaited", "_cancelled", "_coroutine", "_ended", "_steps")

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Steps, ended: Ended) -> None:
        """
        Take the first step; `ended` is called later, never now, and not after `cancel`.

        Args:
            loop: The loop.
            coroutine: What is to be done.
            ended: Is told the error by which it has failed, or None.

        Raises:
            Exception: Whatever is no ordinary failure, which is one of OSError or ValueError;
                `ended` is told all the same.
        """
        self._coroutine = coroutine
        self._ended = ended
        self._cancelled = False
        self._awaited: Any = None
        # Not `coroutine.send`: its StopIteration would be caught here, at the price of a traceback.
        self._steps: Iterator[Any] = iter(coroutine.__await__())
        try:
            awaited: Any = next(self._steps, _OVER)
        except Exception as error:
            loop.call_soon(self._end, error)
            if not isinstance(error, ORDINARY):
                raise
        else:
            if awaited is _OVER:
                loop.call_soon(self._end, None)
            else:
                self._awaited = awaited
                awaited.add_done_callback(self._step)

    def cancel(self) -> None:
        """Have it end where it is, as a task would: what it has begun, it gives back, in a moment."""
        self._cancelled = True
        if self._awaited is not None:
            self._awaited.cancel()  # which leads to a last step, unless that is under way

    def _step(self, done: object) -> None:  # noqa: ARG002  # the callback's shape
        if self._cancelled:
            self._coroutine.close()
            return
        try:
            awaited: Any = next(self._steps, _OVER)  # asks the future for what has become of it
        except Exception as error:
            self._end(error)
            if not isinstance(error, ORDINARY):
                raise
        else:
            if awaited is _OVER:
                self._end(None)
            else:
                self._awaited = awaited
                awaited.add_done_callback(self._step)

    def _end(self, error: Exception | None) -> None:
        if not self._cancelled:
            self._cancelled = True  # there is nothing left to be cancelled
            self._ended(self, error)
