"""
Hear of edits of the mesh's files.

A single file is watched through its folder: editors replace a file rather than write into it, and
a watch on the file would stay with the one that is gone.
"""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import watchfiles

DEBOUNCE = 50
"""Milliseconds of quiet that end an edit: an editor's write, rename and touch are one."""


async def edits(files: Sequence[Path]) -> AsyncIterator[None]:
    """Yield once after each burst of changes of `files` or of what lies below them."""
    wanted = [path.resolve() for path in files]
    folders = {path if path.is_dir() else path.parent for path in wanted}

    def concerns_us(_change: watchfiles.Change, name: str) -> bool:
        path = Path(name)
        return any(path == root or root in path.parents for root in wanted)

    async for _ in watchfiles.awatch(
        *folders,
        watch_filter=concerns_us,
        debounce=DEBOUNCE,
        step=DEBOUNCE // 2,
        recursive=any(path.is_dir() for path in wanted),
    ):
        yield
