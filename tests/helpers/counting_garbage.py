"""
The sidecar, which on SIGUSR1 logs what only the cycle collector finds: `garbage {"type": number}`.

    python -m tests.helpers.counting_garbage run --bootstrap FILE
"""

import gc
import json
import signal
import sys
from collections import Counter
from types import FrameType

from meshproxy.__main__ import main


def _count(number: int, frame: FrameType | None) -> None:  # the handler's shape
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.garbage)
    gc.garbage.clear()
    gc.collect()  # for good: they are not to be found again
    print("garbage", json.dumps(found), file=sys.stderr, flush=True)


if __name__ == "__main__":
    gc.disable()
    signal.signal(signal.SIGUSR1, _count)
    main()
