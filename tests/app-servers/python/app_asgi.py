"""The echo as an ASGI application."""


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        if scope["path"] == "/refuse":
            await send({"type": "websocket.close", "code": 4403})
            return
        await send({"type": "websocket.accept", "subprotocol": "chat"})
        await echo(scope, receive, send)
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"a page"})


async def echo(scope, receive, send):
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    while (event := await receive())["type"] == "websocket.receive":
        text, data = event.get("text"), event.get("bytes")
        if text is None:
            await send({"type": "websocket.send", "bytes": data})
        elif text.startswith("close "):
            await send({"type": "websocket.close", "code": int(text[6:])})
        elif text == "headers":
            text = f"path {scope['path']}?{scope['query_string'].decode()}, cookie {headers['cookie']}"
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "text": text})
