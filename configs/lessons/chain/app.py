"""
A link of a chain of services, which now and then fails.

    python app.py NAME [NEXT]

Each asks the next for every request, and answers well if the next does.  `PUT /fail/0.001` lets it
fail so often from now on, and answers with what it has counted since the last time.  Which requests
fail is decided by their `x-id` and by how often they have come, so two runs fail alike; a request that
comes once more has another chance, as in life.

Nothing in here knows of the mesh, or tries anything twice.  Of the trace context it forwards one field,
so that a sidecar can tell which calls belong to which request.
"""

import os
import random
import sys
from collections import Counter

from aiohttp import ClientSession, ClientTimeout, web

FORWARDED = {"traceparent", "x-id"}
SESSION = web.AppKey("session", ClientSession)
STATE = web.AppKey("state", dict)


async def serve(request: web.Request) -> web.Response:
    state = request.app[STATE]
    id_ = request.headers.get("x-id", "-")
    state["asked"] += 1
    state["times"][id_] += 1
    chance = random.Random(f"{state['name']}/{id_}/{state['times'][id_]}").random()
    if chance < state["rate"]:
        state["failed"] += 1
        return web.Response(status=503, text=f"{state['name']} has failed\n")
    if state["next"] is None:
        return web.Response(text="well done\n")
    headers = {n: v for n, v in request.headers.items() if n.lower() in FORWARDED}
    async with request.app[SESSION].get(state["next"], headers=headers) as answer:
        return web.Response(status=answer.status, text=await answer.text())


async def fail(request: web.Request) -> web.Response:
    """Fail so often from now on; return what was counted until now."""
    state = request.app[STATE]
    counted = {"asked": state["asked"], "failed": state["failed"]}
    state.update(asked=0, failed=0, times=Counter(), rate=float(request.match_info["rate"]))
    return web.json_response(counted)


async def client_session(app: web.Application):
    proxy = os.environ.get("HTTP_PROXY")
    async with ClientSession(proxy=proxy, timeout=ClientTimeout(total=30)) as session:
        app[SESSION] = session
        yield


def main() -> None:
    """Serve on $PORT."""
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python app.py NAME [NEXT]")
    name, following = sys.argv[1], f"http://{sys.argv[2]}/" if len(sys.argv) == 3 else None
    app = web.Application()
    app.add_routes([web.get("/", serve), web.put("/fail/{rate}", fail)])
    app[STATE] = {
        "name": name, "next": following, "rate": 0.0, "asked": 0, "failed": 0, "times": Counter(),
    }  # fmt: skip
    app.cleanup_ctx.append(client_session)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=None, print=None)


if __name__ == "__main__":
    main()
