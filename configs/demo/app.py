"""
The three apps of the demo: a shop that asks its catalog and its reviews.

    python app.py storefront | catalog | reviews

Nothing in here knows of the mesh.  The storefront calls plain http://catalog/ and
http://reviews/; because HTTP_PROXY is set, its requests go to the sidecar on this machine, which
finds a server, proves who we are, and checks who answers.  Of the trace context the app forwards
one header, so that the requests it makes can be told to belong to the one that it serves.
"""

import asyncio
import os
import sys

from aiohttp import ClientError, ClientSession, ClientTimeout, web

VERSION = os.environ.get("VERSION", "v1")
ITEMS = ["anvil", "boomerang", "candle"]
STARS = {"anvil": 4, "boomerang": 5, "candle": 3}
SESSION = web.AppKey("session", ClientSession)


async def catalog(_request: web.Request) -> web.Response:
    """What there is, and which version of the catalog says so."""
    return web.json_response({"version": VERSION, "items": ITEMS})


async def reviews(_request: web.Request) -> web.Response:
    """How much people liked it."""
    return web.json_response({"stars": STARS})


async def storefront(request: web.Request) -> web.Response:
    """Ask both services at once and put their answers together."""
    session = request.app[SESSION]
    headers = {
        name: request.headers[name]
        for name in ("traceparent", "tracestate")
        if name in request.headers
    }

    async def ask(url: str) -> dict:
        async with session.get(url, headers=headers) as answer:
            answer.raise_for_status()
            return await answer.json()

    try:
        goods, opinions = await asyncio.gather(ask("http://catalog/"), ask("http://reviews/"))
    except (ClientError, TimeoutError) as error:
        return web.json_response({"error": str(error)}, status=502)
    return web.json_response(
        {
            "catalog": goods["version"],
            "items": [{"name": name, "stars": opinions["stars"][name]} for name in goods["items"]],
        }
    )


async def client_session(app: web.Application):
    """One client for the life of the app: it keeps its connections to the sidecar open."""
    # Most HTTP clients obey HTTP_PROXY unasked; aiohttp would too with trust_env=True, but then
    # looks for a netrc file in a thread before each request, which takes longer than the request.
    proxy = os.environ.get("HTTP_PROXY")
    async with ClientSession(proxy=proxy, timeout=ClientTimeout(total=5)) as session:
        app[SESSION] = session
        yield


def main() -> None:
    """Serve one of the roles on $PORT."""
    roles = {"storefront": storefront, "catalog": catalog, "reviews": reviews}
    if len(sys.argv) != 2 or sys.argv[1] not in roles:
        sys.exit(f"usage: python app.py {' | '.join(roles)}")
    app = web.Application()
    app.router.add_get("/", roles[sys.argv[1]])
    app.cleanup_ctx.append(client_session)
    port = int(os.environ["PORT"])
    print(f"{sys.argv[1]} {VERSION} serves on port {port}")
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main()
