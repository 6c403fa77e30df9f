"""A WebSocket server with Python's websockets; see server.cjs for what it does and says."""

import asyncio
import json
import logging
import urllib.parse

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def handle(socket):
    path = socket.request.path
    _, what, *words = map(urllib.parse.unquote, path.split("/"))
    try:
        async for message in socket:
            if what == "echo":
                await socket.send(message)
            elif what == "ping":
                await (await socket.ping("are you there?"))
                await socket.send("pong are you there?")
            elif what == "close":
                await socket.close(int(words[0]), words[1])
            elif what == "abort":
                socket.transport.abort()
    except ConnectionClosed:
        pass
    await socket.wait_closed()
    end = {"path": path, "code": socket.close_code, "reason": socket.close_reason}
    print(json.dumps(end), flush=True)


async def main():
    # A browser asks for an icon of its page; that is no WebSocket, and no news.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    async with serve(handle, "127.0.0.1", 0, max_size=16 << 20, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
