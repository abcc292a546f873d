"""What a process costs: read from /proc, so that the process need not know it is watched."""

import re
from dataclasses import dataclass
from pathlib import Path

_MEGABYTE = 1024  # smaps counts in kB


@dataclass(frozen=True)
class Memory:
    """Megabytes: resident, and of these not shared with any other process."""

    rss: float
    private: float


def cpu_nanoseconds(pid: int) -> int:
    """Return the on-CPU time of all threads of `pid` and of its children, so far."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            # First field of schedstat: nanoseconds on a CPU.  `stat` would count ticks of 10 ms.
            total += int((task / "schedstat").read_text().split()[0])
            children = (task / "children").read_text().split()
        except FileNotFoundError:  # a thread that has just ended
            continue
        total += sum(cpu_nanoseconds(int(child)) for child in children)
    return total


def memory(pid: int) -> Memory:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = {
        name: int(kilobytes)
        for name, kilobytes in re.findall(r"^(\w+): +(\d+)", text, re.MULTILINE)
    }
    return Memory(
        rss=sizes["Rss"] / _MEGABYTE,
        private=(sizes["Private_Clean"] + sizes["Private_Dirty"]) / _MEGABYTE,
    )


def below(pid: int) -> list[int]:
    """Return all descendants of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *below(int(child))]
    return found
