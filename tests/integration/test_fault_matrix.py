"""Each fault, over each protocol, under each policy: what comes of it, through real sidecars."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from tests.helpers.fault_matrix.clients import Given, Request, Seen, ask
from tests.helpers.fault_matrix.mesh import Case, Counted, FaultMesh
from tests.helpers.fault_matrix.row import LANES, Policy, Row
from tests.helpers.fault_matrix.rows import MATRIX
from tests.helpers.fault_server.control import MODES
from tests.helpers.fault_server.handle import Counts, FaultServer

pytestmark = pytest.mark.integration

AT_ONCE = 32
CASES = {
    Case(f"r{number}-{lane}-{way}", lane, way, policy.name, row.second): (policy, row)
    for number, (policy, row) in enumerate((p, row) for p, rows in MATRIX for row in rows)
    for lane in LANES
    if row.expected(lane)
    for way in policy.ways
    if way in row.ways
}


class Outcome:
    """
    What has come of all cases: they are tried together, and judged one by one.

    Attributes:
        seen: By case, what its client has seen, or what went wrong with the client.
        counts: What the server has counted.
        log: Of a.
        counted: By service, what a has counted.
    """

    def __init__(self, mesh: FaultMesh) -> None:
        self.seen: dict[Case, Seen | BaseException] = {}
        asyncio.run(self._try(mesh))
        self.counts: Counts = mesh.server.counts()
        self.log = mesh.a.log()
        self.counted: Mapping[str, Counted] = mesh.counted(
            {
                case.name: 1 + len(row.before) + (row.beside is not None) + is_warmed(policy, row)
                for case, (policy, row) in CASES.items()
            }
        )

    async def _try(self, mesh: FaultMesh) -> None:
        """A mode of the server is one for all: so those of one mode go together."""
        for mode, timed in itertools.product(MODES, (False, True)):
            cases = [
                case
                for case, (policy, row) in CASES.items()
                if (row.mode, policy.timed) == (mode, timed)
            ]
            mesh.server.mode(mode)
            await asyncio.to_thread(awaited, mesh, cases)
            few = asyncio.Semaphore(
                2
            )  # or their handshakes together take longer than a policy allows
            await asyncio.gather(*(self._warm(mesh, case, few) for case in cases))
            some = asyncio.Semaphore(AT_ONCE)
            struck = Struck(mesh, len(cases))
            if timed or mode == "silent":  # they mostly wait
                some = asyncio.Semaphore(len(cases))
            seen = await asyncio.gather(
                *(self._ask(mesh, case, struck, some) for case in cases), return_exceptions=True
            )
            self.seen |= dict(zip(cases, seen, strict=True))
            await asyncio.to_thread(settle, mesh.server, cases)
        mesh.server.mode("serve")

    async def _warm(self, mesh: FaultMesh, case: Case, some: asyncio.Semaphore) -> None:
        """Let connections be made, of which the time is not to be measured."""
        policy, row = CASES[case]
        if is_warmed(policy, row):
            request = self._request(case, row, "", id_=f"{case.name}-before")
            async with some:
                seen = await ask(case.lane, mesh.port, [request], None)
                assert seen.text in ("0", "200"), seen

    async def _ask(
        self, mesh: FaultMesh, case: Case, struck: "Struck", some: asyncio.Semaphore
    ) -> Seen:
        row = CASES[case][1]
        async with some, self._beside(mesh, case, row):
            requests = [self._request(case, row, says) for says in row.before]
            requests.append(self._request(case, row, row.says, row.body))
            return await ask(case.lane, mesh.port, requests, struck.by(case, row))

    @asynccontextmanager
    async def _beside(self, mesh: FaultMesh, case: Case, row: Row) -> AsyncIterator[None]:
        """Have a request under way on another connection, from when it has struck until the end."""
        if row.beside is None:
            yield
            return
        id_, over, server = f"{case.name}-beside", asyncio.Event(), mesh.server
        request = self._request(case, row, row.beside, id_=id_)

        async def until_over() -> None:
            await over.wait()

        beside = asyncio.create_task(ask(case.lane, mesh.port, [request], until_over))
        try:
            async with asyncio.timeout(20):
                while id_ not in server.counts().received:
                    await asyncio.sleep(0.01)
            yield
        finally:
            over.set()
            assert (await beside).text == "waits"

    def _request(
        self, case: Case, row: Row, says: str, body: int = 0, id_: str | None = None
    ) -> Request:
        fields = {"x-id": id_ or case.name, "x-fault": says, **row.fields}
        return Request(row.method, case.name, fields, b"." * body, row.keeps)


def awaited(mesh: FaultMesh, cases: Collection[Case]) -> None:
    """Wait until the second endpoints of these services are in the states that their rows want."""
    wanted = {case.name: CASES[case][1].awaits for case in cases if CASES[case][1].awaits}
    if wanted:
        with suppress(AssertionError):  # each is judged by itself
            wait_until(lambda: mesh.state_of_second(wanted) == wanted)


def settle(server: FaultServer, cases: Collection[Case]) -> None:
    """Wait until the server has heard that attempts were given up."""
    wanted = {case.name: CASES[case][1].abandoned for case in cases if CASES[case][1].abandoned}
    with suppress(AssertionError):  # each is judged by itself
        wait_until(lambda: wanted.items() <= server.counts().abandoned.items())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_warmed(policy: Policy, row: Row) -> bool:
    """Say whether a good request goes before, on a connection of its own."""
    return policy.timed and row.mode == "serve" and not policy.peer


class Struck:
    """Tells clients that would wait for ever that their fault has struck."""

    def __init__(self, mesh: FaultMesh, connections: int) -> None:
        self._server = mesh.server
        self._connections = self._server.counts().connections + connections

    def by(self, case: Case, row: Row) -> Given | None:
        if "waits" not in row.expected(case.lane):
            return None

        async def struck() -> None:
            async with asyncio.timeout(20):
                while (counts := self._server.counts()).received.get(case.name, 0) <= len(
                    row.before
                ):
                    if row.mode == "silent" and counts.connections >= self._connections:
                        return
                    await asyncio.sleep(0.01)

        return struck


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    cases = {case: policy for case, (policy, _) in CASES.items()}
    with FaultMesh(tmp_path_factory.mktemp("mesh"), cases) as mesh:
        return Outcome(mesh)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, id=f"{c.policy}:{row.what}:{c.lane}:{c.way}")
        for c, (_, row) in CASES.items()
    ],
)
def test_fault(outcome: Outcome, case: Case) -> None:
    """The client sees what the documents promise, the app has done the work as often, and it is counted."""
    policy, row = CASES[case]
    seen = outcome.seen[case]
    if isinstance(seen, BaseException):
        raise seen
    expected = row.expected(case.lane, case.way)
    if row.flag == "UMSDR":  # on a crowded machine an answer may begin so late that its time is up
        expected += replace(row, lanes={}, sees="duration-exceeded").expected(case.lane)
    assert seen.text in expected
    if seen.text in ("0", "200"):
        assert seen.body.startswith(case.name.encode())
    executed = outcome.counts.executed.get(case.name, 0)
    assert executed == row.executions(case.lane) + len(row.before)
    if row.elsewhere:
        assert outcome.counts.elsewhere.get(case.name, 0) in row.elsewhere
    if row.abandoned:
        assert outcome.counts.abandoned.get(case.name) == row.abandoned
    if case.way == "pair":
        return  # the sidecar beside the app counts most of it
    counted = outcome.counted[case.name]
    good = len(row.before) + is_warmed(policy, row)
    others = Counter({"-": good, "DC": int(row.beside is not None)})
    assert counted.flags in [others + Counter([flag]) for flag in row.flags(case.lane)]
    if row.counts is not None:
        # Checks go on all the time, and how many there have been by now is nobody's promise.
        told = {
            n: count for n, count in counted.counts.items() if not n.startswith("health_checks ")
        }
        assert told == row.counts
        for name in row.counts:
            what, _, reason = name.partition(" ")
            if what == "retries_skipped":
                assert f"{case.name}: a retry was not made: {reason};" in outcome.log
