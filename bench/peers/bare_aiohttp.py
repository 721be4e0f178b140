"""A bare aiohttp application: hits from a dictionary with verified tokens remembered, and pass-through with nothing checked."""

import sys

import jwt
import uvloop
from aiohttp import ClientSession, TCPConnector, web

ORIGIN = "http://127.0.0.1:18080"
with open("./pub.pem", encoding="ascii") as file:  # noqa: PTH123
    public = file.read()
tokens: dict[str, str] = {}
pages: dict[tuple[str, str], bytes] = {}


async def forward(request: web.BaseRequest) -> tuple[int, bytes]:
    session: ClientSession = request.protocol._manager.session
    async with session.get(ORIGIN + request.raw_path, headers={"Accept": "application/json"}) as answer:
        return answer.status, await answer.read()


async def handle(request: web.BaseRequest) -> web.Response:
    if not request.path.startswith("/v3/processes"):
        status, body = await forward(request)
        return web.Response(status=status, body=body, content_type="application/json")
    token = request.headers["Authorization"]
    user = tokens.get(token)
    if user is None:
        claims = jwt.decode(token[7:], public, algorithms=["RS256"], audience="cloud_controller")
        user = tokens[token] = claims["user_id"]
    key = (user, request.raw_path)
    body = pages.get(key)
    if body is None:
        _, body = await forward(request)
        pages[key] = body
    return web.Response(body=body, content_type="application/json")


async def main(port: int) -> None:
    server = web.Server(handle)
    server.session = ClientSession(connector=TCPConnector(limit=100))
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    import asyncio

    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
