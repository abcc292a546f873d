"""Requests that must not be repeated, while connections are cut at every place there is."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from meshproxy.refusal import REFUSALS
from tests.helpers.chopper import Chopper
from tests.helpers.client import connect
from tests.helpers.fault_matrix.clients import Seen, hear_http1
from tests.helpers.fault_server.handle import FaultServer
from tests.helpers.pair import Pair
from tests.helpers.ports import free_port

pytestmark = pytest.mark.integration

REQUESTS = 5_000  # over each protocol: ten thousand in all
AT_ONCE = 16
BODY = 2_000
CUT_EVERY = 300_000  # bytes between the sidecars, on average
BAD = {"http1": 0.1, "http2": 0.02}
"""Share of the requests at which the app misbehaves; over HTTP/2, each takes all others along."""

POINTS = ("request", "request+{}", "head", "head+{}", "body+{}", "end")


def fault(chance: random.Random, bad: float) -> str:
    """Return what goes wrong with one request."""
    if chance.random() >= bad:
        return ""
    point = chance.choice(POINTS).format(chance.randrange(1, BODY))
    action = chance.choice(("reset", "close"))
    # The worst there is: what has begun to read has begun to work.
    executes = " executes" if chance.random() < 0.5 else ""
    return f"at={point} do={action}{executes} size={BODY}"


@pytest.mark.parametrize("protocol", ["http1", "http2"])
async def test_no_post_is_executed_twice_and_none_is_lost_in_silence(
    tmp_path: Path, protocol: str
) -> None:
    """
    Each is answered; a success was executed once, a 503 never, anything else at most once.

    The app cuts connections before, while and after it works, somebody between the sidecars cuts
    them wherever he likes, and all that are open are cut again and again while they rest.
    """
    chance = random.Random(4)
    asked = {f"{number}": fault(chance, BAD[protocol]) for number in range(REQUESTS)}
    seen: dict[str, Seen] = {}
    with FaultServer() as server:
        between = free_port()
        pair = Pair(tmp_path, server.port, app_protocol=protocol, between=between)
        async with Chopper(between, pair.inbound, mean=CUT_EVERY, seed=4) as chopper:
            await asyncio.to_thread(pair.__enter__)
            try:
                await ask_all(pair.door, asked, seen, server)
            finally:
                await asyncio.to_thread(pair.__exit__)
        executed = server.counts().executed

    assert len(seen) == REQUESTS
    wrong = {id_: (asked[id_], what.text, executed.get(id_, 0)) for id_, what in seen.items()
             if executed.get(id_, 0) not in allowed(id_, what)}  # fmt: skip
    assert not wrong
    # And it was not for want of trying.
    kinds = Counter(what.text for what in seen.values())
    assert kinds["200"] > REQUESTS * 0.5
    assert kinds["torn"]
    assert sum(kinds.values()) - kinds["200"] - kinds["torn"] > REQUESTS * 0.02
    assert chopper.cuts > 5


def allowed(id_: str, seen: Seen) -> tuple[int, ...]:
    """Return how often a request may have been executed whose client has seen this."""
    if seen.text == "200":
        assert seen.body.startswith(f"{id_}\n".encode()), "somebody else's answer"
        return (1,)
    if seen.text == "torn":
        return (1,)
    status, _, code = seen.text.partition(" ")
    if seen.text == "nothing":
        return ()
    why = REFUSALS[code]
    assert why.status == int(status)
    return (0, 1) if why.processed else (0,)


async def ask_all(
    port: int, asked: dict[str, str], seen: dict[str, Seen], server: FaultServer
) -> None:
    """Let some clients share the requests; now and then, all connections of the app are cut."""
    left = iter(asked.items())

    async def client() -> None:
        while True:
            async with connect(port) as connection:
                for id_, fault in left:
                    head = (
                        f"POST / HTTP/1.1\r\nHost: catalog\r\nX-Id: {id_}\r\nX-Fault: {fault}\r\n"
                        f"Content-Length: {BODY}\r\n\r\n"
                    )
                    await connection.send(head.encode() + b"." * BODY)
                    async with asyncio.timeout(60):
                        answer = seen[id_] = await hear_http1(connection.reader)
                    if len(seen) % 500 == 0:
                        server.hang_up()
                    if answer.text == "torn" or ends(answer) or "at=end" in fault:
                        break  # in the last case we have it all, but the sidecar has not
                else:
                    return

    async with asyncio.TaskGroup() as clients:
        for _ in range(AT_ONCE):
            clients.create_task(client())


def ends(answer: Seen) -> bool:
    return answer.fields is not None and answer.fields.get("connection") == "close"
