"""
What an import costs: memory and time of an interpreter that does nothing else.

    python -m bench.imports [MODULE+MODULE …]

Each line is a process of its own, started five times, of which the medians count.  Modules overlap
(most of them need `ssl` or `asyncio`), so the lines do not add up: compare a line with its base.
"""

import statistics
import subprocess
import sys

DEFAULT = (
    "",
    "asyncio",
    "uvloop",
    "msgspec",
    "re2",
    "prometheus_client",
    "uvloop+ssl+msgspec+re2",
    "uvloop+ssl+msgspec+re2+prometheus_client",
    "uvloop+ssl+msgspec+re2+prometheus_client+websockets.asyncio.client",
    "websockets.client",
    "websockets.asyncio.client",
    "aiohttp",
    "cryptography.x509",
    "yaml",
    "watchfiles",
    "rich.table",
)
_TIMES = 5
_CHILD = """
import sys, time
began = time.perf_counter()
for name in filter(None, sys.argv[1].split("+")):
    __import__(name)
took = time.perf_counter() - began
text = open("/proc/self/smaps_rollup").read()
size = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
print(size["Rss"] / 1024, (size["Private_Clean"] + size["Private_Dirty"]) / 1024, took * 1000)
"""


def cost(modules: str) -> list[float]:
    """Return RSS and private memory in MB, and the time of the imports in ms."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", _CHILD, modules], capture_output=True, text=True, check=True
        )
        for _ in range(_TIMES)
    ]
    return [
        statistics.median(column)
        for column in zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
    ]


def main() -> None:
    print(f"{'imports':<68} {'RSS MB':>7} {'private':>8} {'ms':>5}")
    for modules in sys.argv[1:] or DEFAULT:
        rss, private, took = cost(modules)
        print(f"{modules or '(nothing)':<68} {rss:>7.1f} {private:>8.1f} {took:>5.0f}")


if __name__ == "__main__":
    main()
