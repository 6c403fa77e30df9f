"""Holds a dialogue with the echo: client.py URL"""

import asyncio
import os
import ssl
import sys
import urllib.request

import websockets
from websockets.asyncio.client import connect

url = sys.argv[1]
trust = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]) if url.startswith("wss") else None


def opened(path="/echo"):
    headers = {"Cookie": "a=1"}
    return connect(url + path, ssl=trust, subprotocols=["other", "chat"], additional_headers=headers, max_size=None)


async def main():
    async with opened() as wire:
        await wire.send("hello")
        print(f"text: {await wire.recv()}")
        blob = os.urandom(300_000)
        await wire.send(blob)
        seen = await wire.recv()
        print(f"binary: {len(seen)} bytes, {'intact' if seen == blob else 'broken'}")
        await wire.send(["in ", "three ", "ps."])
        print(f"fragments: one message of {len(await wire.recv())} characters")
        await (await wire.ping())
        print("ping: answered")
        await wire.send("close 4001")
        try:
            await wire.recv()
        except websockets.ConnectionClosed as closed:
            print(f"close: {closed.rcvd.code} as asked")
    async with opened("/echo?room=1") as wire:
        await wire.send("headers")
        print(f"headers: {await wire.recv()}, subprotocol {wire.subprotocol}")
        await wire.close(1000)
        print(f"client's close: {wire.close_code} answered")
    try:
        async with opened("/refuse"):
            print("not refused")
    except websockets.InvalidStatus as refused:
        print(f"refused: {refused.response.status_code}")
    with urllib.request.urlopen(url.replace("ws", "http", 1) + "/page", timeout=60, context=trust) as page:
        print(f"page: {page.status} {page.read().decode()}")


asyncio.run(main())
