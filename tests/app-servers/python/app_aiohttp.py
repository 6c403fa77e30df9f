"""The echo for aiohttp: app_aiohttp.py PORT"""

import sys

from aiohttp import WSMsgType, web


async def echo(request):
    wire = web.WebSocketResponse(protocols=["chat"])
    await wire.prepare(request)
    async for message in wire:
        if message.type == WSMsgType.BINARY:
            await wire.send_bytes(message.data)
        elif message.data.startswith("close "):
            await wire.close(code=int(message.data[6:]))
        elif message.data == "headers":
            await wire.send_str(f"path {request.path_qs}, cookie {request.headers['Cookie']}")
        else:
            await wire.send_str(message.data)
    return wire


async def refuse(request):
    raise web.HTTPForbidden


async def page(request):
    return web.Response(text="a page")


app = web.Application()
app.add_routes([web.get("/echo", echo), web.get("/refuse", refuse), web.get("/page", page)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
