"""
Fuzz with coverage as the guide: `python -m tests.fuzz.coverage_guided`.

atheris (libFuzzer) changes the seeds of each target, keeps what reaches code that nothing before has
reached, and changes that.  It stops at the first input that breaks something, that takes longer than
ten seconds or too much memory, and writes it down; what it has kept makes the next run begin where
this one has ended.

    --seconds 60      for each target
    --only NAME …     these targets (see `targets.py`)
    --corpus FOLDER   where what was kept stands, and what was found (.fuzz)
    --again FILE      once more with what was found, with the one target of --only
"""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.fuzz.mutation import LARGEST, TOKENS

HANG = 10
MEGABYTES = 2048


def main() -> int:
    parser = argparse.ArgumentParser(prog="coverage_guided", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"))
    parser.add_argument("--again", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return _fuzz(given.child, given.corpus, given.seconds, given.again)

    from tests.fuzz.targets import TARGETS  # not before: the child instruments them on import

    if unknown := set(given.only) - set(TARGETS):
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    failed = []
    for name in given.only or TARGETS:
        # In a process of its own, for a finding ends the process.
        child = [sys.executable, "-m", "tests.fuzz.coverage_guided", "--child", name]
        child += ["--corpus", str(given.corpus), "--seconds", str(given.seconds)]
        child += ["--again", str(given.again)] if given.again else []
        print(f"== {name}", flush=True)
        if subprocess.run(child, check=False).returncode:
            failed.append(name)
    print(f"{'found something: ' + ', '.join(failed) if failed else 'nothing found'}")
    return 1 if failed else 0


def _fuzz(name: str, corpus: Path, seconds: int, again: Path | None) -> int:
    import atheris

    with atheris.instrument_imports(
        include=["meshproxy", "control_plane"], enable_loader_override=False
    ):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    kept, found = corpus / name, corpus / "found"
    for folder in (kept, found):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (kept / f"seed-{number}").write_bytes(seed)
    words = corpus / "dictionary.txt"
    words.write_text("".join('"' + "".join(f"\\x{b:02x}" for b in word) + '"\n' for word in TOKENS))
    options = [
        *(f"-max_len={LARGEST}", f"-timeout={HANG}", f"-rss_limit_mb={MEGABYTES}"),
        *(f"-dict={words}", f"-artifact_prefix={found}/{name}-", "-print_final_stats=1"),
    ]
    inputs = [str(again)] if again else [f"-max_total_time={seconds}", str(kept)]
    atheris.Setup([name, *options, *inputs], target.check)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
