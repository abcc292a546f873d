"""
Every vector against a real sidecar, with an app behind it that writes down what it was told.

How a vector is written stands in `vectors/__init__.py`; what other proxies say to the same bytes in
`docs/conformance.md`.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance import http2_verdict, verdict
from tests.conformance.backend import Backend, recording
from tests.conformance.sidecar import sidecar_before
from tests.conformance.vectors import Vector, read
from tests.helpers.client import get

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[tuple[int, Backend]]:
    """Give the port of a sidecar and the app behind it."""
    async with recording() as backend:
        # A vector whose message ends with FIN wants to hear the answer to it.
        settings = {"half_closing_clients": True}
        sidecar, port = sidecar_before(directory, backend.port, settings)
        await asyncio.to_thread(sidecar.start)
        try:
            yield port, backend
        finally:
            await asyncio.to_thread(sidecar.__exit__)


async def complaints(vector: Vector, port: int, backend: Backend) -> list[str]:
    """Return in what the sidecar has not done as it should."""
    backend.requests.clear()
    backend.answer = vector.answer
    got: verdict.Verdict | http2_verdict.Verdict
    if vector.file.startswith("http2-"):
        got = await http2_verdict.ask(port, vector.send)
    else:
        got = await verdict.ask(port, vector.send, probe=vector.probe)
    assert (await get(port, "/barrier")).status == 200  # what went before has arrived by now
    wrong = []
    said = str(got)
    expected = vector.expect
    if said != expected and not (expected == "refused" and refused(said)):
        wrong.append(f"expected {expected}, got {said}")
    seen = [r for r in backend.requests if "/barrier" not in str(r) and "/probe" not in str(r)]
    told = [str(request) for request in seen]
    if vector.backend == "never finished":
        ok = all(text.startswith("unfinished ") for text in told) or not any(
            r.complete for r in seen
        )
    else:
        ok = vector.backend == "any" or told == (
            [] if vector.backend == "nothing" else vector.backend
        )
    if not ok or any("/smuggled" in request.head.decode("latin-1") for request in seen):
        wrong.append(f"the app should have seen {vector.backend}, and saw {told}")
    lines = [line.lower() for line in seen[0].lines] if seen else []
    wrong += [f"{field!r} is missing" for field in vector.has if field.lower() not in lines]
    names = {line.partition(":")[0] for line in lines}
    wrong += [f"{name} should not be there" for name in vector.lacks if name in names]
    answered = got.first.lower().split("\r\n")[1:]
    wrong += [f"answer lacks {field!r}" for field in vector.sees if field.lower() not in answered]
    names = {line.partition(":")[0] for line in answered}
    wrong += [f"answer has {name}" for name in vector.hides if name in names]
    return [f"{vector}: {what}" for what in wrong]


def refused(said: str) -> bool:
    """Say whether a stream was refused, by whatever layer has seen first what is wrong with it."""
    return said in ("reset", "goaway") or said[:1] in ("4", "5")


@pytest.mark.timeout(120)
async def test_all_vectors(tmp_path: Path) -> None:
    """The client gets the verdict, and the app has seen nothing else than it says."""
    found: list[str] = []
    async with scene(tmp_path) as (port, backend):
        for vector in read():
            found += await complaints(vector, port, backend)
    assert not found, "\n".join(found)


def test_there_are_enough_and_each_is_one() -> None:
    """A few hundred, no two of the same name in one class, each with a reference."""
    vectors = read()
    assert len(vectors) >= 300
    assert max(Counter(str(vector) for vector in vectors).values()) == 1
    assert all(vector.reference and vector.backend is not None for vector in vectors)
