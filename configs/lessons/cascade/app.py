"""
The apps of the lesson: a front, what it depends on, and what that depends on.

    python app.py front | catalog | recommendations | ranking

Nothing in here knows of the mesh, or guards against anything: no timeouts, as in most programs.
The front has a few workers, as most servers have threads or processes; who waits keeps one busy.
Of the trace context each app forwards one header, so that a sidecar can tell which of its app's
calls belong to which request.
"""

import asyncio
import os
import sys

from aiohttp import ClientError, ClientSession, ClientTimeout, web

WORKERS = 8
SESSION = web.AppKey("session", ClientSession)
WORKER = web.AppKey("worker", asyncio.Semaphore)
STATE = web.AppKey("state", dict)


# The front ----------------------------------------------------------------------------------------


async def page(request: web.Request) -> web.Response:
    """Goods, with recommendations if there are any: the page is worth having without them."""
    async with request.app[WORKER]:
        goods = await ask(request, "http://catalog/")
        try:
            advice = await ask(request, "http://recommendations/")
        except ClientError:
            advice = "nothing recommended"
        return web.Response(text=f"{goods}, {advice}")


async def checkout(request: web.Request) -> web.Response:
    """What earns the money: it needs the catalog for the prices, and nothing else."""
    async with request.app[WORKER]:
        return web.Response(text=await ask(request, "http://catalog/"))


# Behind it ----------------------------------------------------------------------------------------


async def catalog(_request: web.Request) -> web.Response:
    return web.Response(text="anvil, boomerang")


async def recommendations(request: web.Request) -> web.Response:
    best = await ask(request, "http://ranking/")
    return web.Response(text=f"recommended: {best}")


async def ranking(request: web.Request) -> web.Response:
    state = request.app[STATE]
    state["asked"] += 1
    await asyncio.sleep(state["delay"])
    return web.Response(text="boomerang")


async def slow_down(request: web.Request) -> web.Response:
    """`PUT /delay/2`: take so many seconds from now on; how often it was asked is the answer."""
    state = request.app[STATE]
    state["delay"] = float(request.match_info["seconds"])
    asked, state["asked"] = state["asked"], 0
    return web.Response(text=str(asked))


# All of them --------------------------------------------------------------------------------------


async def ask(request: web.Request, url: str) -> str:
    """Ask a service for our caller's sake."""
    headers = {n: v for n, v in request.headers.items() if n.lower() == "traceparent"}
    async with request.app[SESSION].get(url, headers=headers) as answer:
        answer.raise_for_status()
        return await answer.text()


async def client_session(app: web.Application):
    proxy = os.environ.get("HTTP_PROXY")
    async with ClientSession(proxy=proxy, timeout=ClientTimeout(total=None)) as session:
        app[SESSION] = session
        yield


def main() -> None:
    """Serve one of the roles on $PORT."""
    roles = {
        "front": [web.get("/", page), web.get("/checkout", checkout)],
        "catalog": [web.get("/", catalog)],
        "recommendations": [web.get("/", recommendations)],
        "ranking": [web.get("/", ranking), web.put("/delay/{seconds}", slow_down)],
    }
    if len(sys.argv) != 2 or sys.argv[1] not in roles:
        sys.exit(f"usage: python app.py {' | '.join(roles)}")
    app = web.Application()
    app.add_routes(roles[sys.argv[1]])
    app[WORKER] = asyncio.Semaphore(WORKERS)
    app[STATE] = {"asked": 0, "delay": 0.0}
    app.cleanup_ctx.append(client_session)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=None, print=None)


if __name__ == "__main__":
    main()
