"""The echo for Sanic: app_sanic.py PORT"""

import sys

from sanic import Sanic
from sanic.exceptions import Forbidden
from sanic.response import text

app = Sanic("echo")


@app.websocket("/echo", subprotocols=["chat"])
async def echo(request, wire):
    async for message in wire:
        if isinstance(message, bytes):
            await wire.send(message)
        elif message.startswith("close "):
            await wire.close(code=int(message[6:]))
        elif message == "headers":
            await wire.send(f"path {request.path}?{request.query_string}, cookie {request.headers['cookie']}")
        else:
            await wire.send(message)


@app.websocket("/refuse")
async def refuse(request, wire):
    raise AssertionError("the middleware refuses before")


@app.on_request
async def guard(request):
    if request.path == "/refuse":
        raise Forbidden("no")


@app.get("/page")
async def page(request):
    return text("a page")


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(sys.argv[1]), single_process=True, access_log=False)
