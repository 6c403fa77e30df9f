"""A WebSocket client with Python's websockets: tries all that server.cjs can do, and fails if anything differs.

    python3 client.py URL CA
"""

import asyncio
import random
import ssl
import sys
import urllib.parse

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20]
PATIENCE = 60  # seconds for everything, on a busy machine


def messages(size):
    """What no compression shortens much, bytes and text, and text whose characters are long."""
    data = random.Random(size).randbytes(size)
    return data, data.hex()[:size], "é" * (size // 2)


async def converse(base, authorities):
    options = {"max_size": 16 << 20, "ping_interval": None, "proxy": None}
    if base.startswith("wss:"):
        options["ssl"] = ssl.create_default_context(cafile=authorities)

    async with connect(f"{base}/echo", **options) as echo:
        assert "permessage-deflate" in echo.response.headers["Sec-WebSocket-Extensions"]
        for size in SIZES:
            for message in messages(size):
                await echo.send(message)
            for message in messages(size):
                assert await echo.recv() == message, f"{size} bytes differ"
        await echo.send(["in ", "three ", "pieces"])
        assert await echo.recv() == "in three pieces"
        await (await echo.ping("anybody?"))
        await echo.close(3001, "the client ✓")
    assert (echo.close_code, echo.close_reason) == (3001, "the client ✓")

    async with connect(f"{base}/ping", **options) as pinged:
        await pinged.send("ping me")
        assert await pinged.recv() == "pong are you there?"
        pinged.transport.abort()
        await pinged.wait_closed()

    reason = urllib.parse.quote("the server ✓")
    assert await end_of(connect(f"{base}/close/4002/{reason}", **options)) == (4002, "the server ✓")
    assert await end_of(connect(f"{base}/abort", **options)) == (1006, "")


async def end_of(connection):
    """How a connection ends after its first message."""
    async with connection as socket:
        await socket.send("now")
        try:
            raise AssertionError(f"got {await socket.recv()!r}")
        except ConnectionClosed:
            return socket.close_code, socket.close_reason


asyncio.run(asyncio.wait_for(converse(*sys.argv[1:]), PATIENCE))
