"""Visitors who come whether the ones before were answered or not, and do not wait for long."""

import re

from aiohttp import web

from lessons.load import trace, visit
from tests.helpers.origin import Conversation, hello, origin


async def test_what_was_seen_of_each_page() -> None:
    """Each page gets its turn; answers, refusals and lost patience are told apart."""
    held: list[Conversation] = []

    async def answer(conversation: Conversation) -> None:
        if b"/slow" in conversation.request_line:
            held.append(conversation)
            await conversation.reader.read()
        elif b"/bad" in conversation.request_line:
            await conversation.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        else:
            await hello(conversation)

    async with origin(answer) as app:
        urls = {name: f"http://127.0.0.1:{app.port}/{name}" for name in ("good", "bad", "slow")}
        seen = await visit(urls, rate=90, seconds=0.1, patience=0.5)

    assert seen["good"].outcomes == {"200": 3}
    assert seen["good"].answered == 100.0
    assert seen["bad"].outcomes == {"503": 3}
    assert seen["slow"].outcomes == {"no answer in time": 3}
    assert (seen["slow"].answered, seen["slow"].latency(0.5)) == (0.0, None)
    assert len(held) == 3


async def test_nobody_listens() -> None:
    """That is seen, too."""
    runner = web.AppRunner(web.Application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    [address] = runner.addresses
    await runner.cleanup()
    seen = await visit({"page": f"http://127.0.0.1:{address[1]}/"}, 20, 0.1, 1)
    assert seen["page"].outcomes == {"ClientConnectorError": 2}


def test_every_visit_has_a_trace_of_its_own() -> None:
    """W3C Trace Context: version, trace id, parent id, flags."""
    one, other = trace()["traceparent"], trace()["traceparent"]
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", one)
    assert one[3:35] != other[3:35]
