"""The client of a set-up: raw HTTP exchanges and WebSocket dialogues, as plain data."""

import asyncio
import socket as sockets
import ssl

import websockets
from websockets.asyncio.client import connect

from app import PATIENCE, digest

SIZES = [0, 1, 125, 126, 65535, 65536, 1 << 20]
KEY = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
# Its text frame "hi", masked; may stand right behind the request.
EARLY = bytes.fromhex("818237fa213d5f93")
# Its Close 1000.
CLOSE = bytes.fromhex("888237fa213d3412")


class Target:
    """Where a set-up is entered."""

    def __init__(self, name, tls, ca):
        self.name, self.port, self.ca = name, 443 if tls else 80, ca
        self.tls = ssl.create_default_context(cafile=ca) if tls else None

    def url(self, path):
        return f"{'wss' if self.tls else 'ws'}://{self.name}{path}"

    async def open(self, tls=True):
        context = self.tls if tls else None
        name = self.name if context else None
        return await asyncio.open_connection(
            self.name, self.port, ssl=context, server_hostname=name, limit=1 << 22
        )


def requests(host):
    """Raw requests by name; each goes out on a connection of its own."""
    h = f"Host: {host}\r\n"
    upgrade = f"{h}Upgrade: websocket\r\nConnection: Upgrade\r\n{KEY}"
    many = "".join(f"X-Filler-{i}: {'y' * 4000}\r\n" for i in range(9))
    return {
        "get": f"GET /length?name=get&x=%20y HTTP/1.1\r\n{h}\r\n",
        "odd-fields": (
            "GET /length?name=odd HTTP/1.1\r\nx-FIRST: 1\r\n"
            f"host: {host.upper()}:8443\r\nCookie: c=1\r\nX-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n"
            "x-real-ip: 192.0.2.3\r\nX-Twice: 1\r\nX-Twice: 2\r\nTE: trailers\r\n"
            "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nAccept: */*\r\nX-Empty:\r\n\r\n"
        ),
        "path": f"GET /a/../length/./%2e%2e//%7Ex?name=path HTTP/1.1\r\n{h}\r\n",
        "absolute-form": f"GET http://{host}/length?name=absolute HTTP/1.1\r\nHost: x.test\r\n\r\n",
        "http-1.0": f"GET /length?name=http10 HTTP/1.0\r\n{h}\r\n",
        "http-1.0-without-host": "GET /length?name=nohost10 HTTP/1.0\r\n\r\n",
        "close-asked-for": f"GET /length?name=close HTTP/1.1\r\n{h}Connection: close\r\n\r\n",
        "unknown-host": "GET /length?name=unknown HTTP/1.1\r\nHost: nobody.test\r\n\r\n",
        "head": f"HEAD /length?name=head HTTP/1.1\r\n{h}\r\n",
        "options": f"OPTIONS /length?name=options HTTP/1.1\r\n{h}\r\n",
        "post": f"POST /length?name=post HTTP/1.1\r\n{h}Content-Length: 11\r\n"
        "Content-Type: text/x\r\n\r\nhello again",
        "post-of-nothing": f"POST /length?name=nothing HTTP/1.1\r\n{h}Content-Length: 0\r\n\r\n",
        "post-chunked": f"POST /length?name=chunks HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n"
        "5;a=b\r\nhello\r\n6\r\n again\r\n0\r\n\r\n",
        "post-large": f"POST /length?name=large HTTP/1.1\r\n{h}Content-Length: 300000\r\n\r\n"
        + "0123456789" * 30000,
        "chunked-answer": f"GET /chunked?name=chunked HTTP/1.1\r\n{h}\r\n",
        "answer-of-many-chunks": f"GET /chunks?name=chunks HTTP/1.1\r\n{h}\r\n",
        "chunked-answer-1.0": f"GET /chunked?name=chunked10 HTTP/1.0\r\n{h}\r\n",
        "answer-until-close": f"GET /until-close?name=until HTTP/1.1\r\n{h}\r\n",
        "no-content": f"GET /empty?name=empty HTTP/1.1\r\n{h}\r\n",
        "not-modified": f"GET /cached?name=cached HTTP/1.1\r\n{h}If-None-Match: \"1\"\r\n\r\n",
        "redirect": f"GET /moved?name=moved HTTP/1.1\r\n{h}\r\n",
        "redirect-away": f"GET /moved-away?name=away HTTP/1.1\r\n{h}\r\n",
        "not-found": f"GET /nothing?name=nothing HTTP/1.1\r\n{h}\r\n",
        "app-error": f"GET /broken?name=broken HTTP/1.1\r\n{h}\r\n",
        # What the proxy answers itself.
        "no-host": "GET /length?name=nohost HTTP/1.1\r\n\r\n",
        "two-hosts": f"GET /length?name=twohosts HTTP/1.1\r\n{h}{h}\r\n",
        "no-request": "no request at all\r\n\r\n",
        "unknown-version": f"GET / HTTP/3.0\r\n{h}\r\n",
        "trace": f"TRACE /length HTTP/1.1\r\n{h}\r\n",
        "head-too-large": f"GET /length?name=head HTTP/1.1\r\n{h}{many}\r\n",
        "uri-too-large": f"GET /length?{'x' * 9000} HTTP/1.1\r\n{h}\r\n",
        "body-too-large": f"POST /length?name=body HTTP/1.1\r\n{h}Content-Length: 2000000\r\n\r\n",
        "unknown-coding": f"POST /length?name=te HTTP/1.1\r\n{h}Transfer-Encoding: gzip\r\n\r\n",
        # Upgrades that stay HTTP.
        "upgrade-denied": f"GET /denied?name=denied HTTP/1.1\r\n{upgrade}\r\n",
        "upgrade-not-found": f"GET /moved?name=upgrade-moved HTTP/1.1\r\n{upgrade}\r\n",
    }


class Http:
    """One connection that speaks raw HTTP."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def head(self):
        raw = await self.reader.readuntil(b"\r\n\r\n")
        line, *fields = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        return {"status": line, "fields": fields}

    async def answer(self, method="GET"):
        """One answer with its body decoded."""
        async with asyncio.timeout(PATIENCE):
            answer = await self.head()
            values = {n.lower(): v.strip() for n, _, v in (f.partition(":") for f in answer["fields"])}
            status = int(answer["status"].split()[1])
            if method == "HEAD" or status < 200 or status in (204, 304):
                body = b""
            elif values.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(await self.reader.readline(), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readline()
            elif "content-length" in values:
                body = await self.reader.readexactly(int(values["content-length"]))
            else:
                body = await self.reader.read()
        answer["body"] = body.decode("latin-1")
        return answer

    async def end(self):
        """How the other side ends the connection."""
        try:
            async with asyncio.timeout(PATIENCE):
                rest = await self.reader.read()
        except ConnectionError:
            return "reset"
        return "eof" if not rest else f"further bytes: {rest[:80]!r}"

    async def send(self, data):
        self.writer.write(data if isinstance(data, bytes) else data.encode())
        await self.writer.drain()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.writer.transport.abort()


async def attempt(dialogue, app):
    """What a dialogue says and what the app server saw; a failure is something said, too."""
    try:
        client = await dialogue
    except (OSError, EOFError, TimeoutError, websockets.WebSocketException) as error:
        client = {"failed": f"{type(error).__name__}: {error}"}
    return {"client": client, "app": await app.take()}


async def ordinary(target, app):
    """Every request of the table, its answer and what the app server saw."""
    dialogues = {name: single(target, request) for name, request in requests(target.name).items()}
    dialogues["keep-alive"] = keep_alive(target)
    dialogues["continue"] = expect_continue(target)
    if target.tls:
        request = f"GET / HTTP/1.1\r\nHost: {target.name}\r\n\r\n"
        dialogues["http-on-the-tls-port"] = single(target, request, tls=False)
    return {name: await attempt(dialogue, app) for name, dialogue in dialogues.items()}


async def single(target, request, tls=True):
    async with Http(*await target.open(tls)) as http:
        await http.send(request)
        answer = await http.answer(request.split(" ")[0])
        # After a 413 both linger for the body for seconds; that is not waited for.
        if "Connection: close" in answer["fields"] and " 413 " not in answer["status"]:
            answer["end"] = await http.end()
    return answer


async def keep_alive(target):
    """Three requests on one connection, the last two in one write."""
    request = f"GET /length?name=alive HTTP/1.1\r\nHost: {target.name}\r\n\r\n"
    post = f"POST /chunks?name=alive HTTP/1.1\r\nHost: {target.name}\r\nContent-Length: 3\r\n\r\nabc"
    async with Http(*await target.open()) as http:
        await http.send(request)
        answers = [await http.answer()]
        await http.send(post + request)
        return answers + [await http.answer(), await http.answer()]


async def expect_continue(target):
    async with Http(*await target.open()) as http:
        await http.send(
            f"POST /length?name=continue HTTP/1.1\r\nHost: {target.name}\r\n"
            "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        answers = [await http.answer()]
        await http.send("hello")
        return answers + [await http.answer()]


async def dialogues(target, app):
    """Every WebSocket dialogue by name."""
    all_of_them = (raw_handshake, messages, compressed, early, goodbye, abort, vanish)
    return {dialogue.__name__: await attempt(dialogue(target), app) for dialogue in all_of_them}


def websocket(target, path, **options):
    """A WebSocket of Python's `websockets`."""
    options = {"compression": None, "max_size": None, "ping_interval": None, **options}
    return connect(target.url(path), ssl=target.tls, proxy=None, open_timeout=PATIENCE, **options)


def answer_of(ws):
    response = ws.response
    fields = [f"{name}: {value}" for name, value in response.headers.raw_items()]
    return {"status": f"{response.status_code} {response.reason_phrase}", "fields": fields}


async def raw_handshake(target):
    """Fields in the case of a browser, a message right behind the request, then the end."""
    request = (
        f"GET /echo?name=raw HTTP/1.1\r\nhost: {target.name}\r\nUSER-AGENT: raw\r\n"
        f"upgrade: WebSocket\r\nconnection: keep-alive, Upgrade\r\nOrigin: https://{target.name}\r\n"
        f"{KEY}X-Real-IP: 192.0.2.9\r\n\r\n"
    )
    async with asyncio.timeout(PATIENCE), Http(*await target.open()) as http:
        await http.send(request.encode() + EARLY)
        answer = await http.head()
        answer["echo"] = (await http.reader.readexactly(4)).hex()
        await http.send(CLOSE)
        answer["close"] = (await http.reader.readexactly(4)).hex()
        answer["end"] = await http.end()
    return answer


async def messages(target):
    """Messages of all sizes, fragments, pings both ways, and a Close from the client."""
    echoes = []
    async with asyncio.timeout(PATIENCE):
        ws = await websocket(target, "/echo?name=messages", subprotocols=["chat.v2", "chat.v3"])
        for size in SIZES:
            binary = bytes(i * 7 % 251 for i in range(size))
            for message in ("é" * (size // 2) + "x" * (size % 2), binary):
                await ws.send(message)
                answer = await ws.recv()
                echoes.append(f"{type(answer).__name__} {size} {answer == message}")
        await ws.send(["one ", "two ", "three"])
        await ws.send([b"\x00" * 70000, b"\xff" * 5])
        echoes += [await ws.recv(), digest(await ws.recv())]
        await (await ws.ping("hello?"))
        await ws.send("ping me")
        echoes.append(await ws.recv())
        # Everything at once: the answers come in order.
        await asyncio.gather(*(ws.send(f"number {i}") for i in range(50)))
        echoes += [await ws.recv() for _ in range(50)]
        await ws.close(4001, "enough, thanks ✓")
    return {"answer": answer_of(ws), "echoes": echoes, "end": [ws.close_code, ws.close_reason]}


async def compressed(target):
    """permessage-deflate is between the two ends and passes through."""
    async with asyncio.timeout(PATIENCE):
        ws = await websocket(target, "/echo?name=compressed", compression="deflate")
        echoes = []
        for message in ("", "a" * 100000, "a" * 100000, b"\x00\x01" * 5000):
            await ws.send(message)
            echoes.append(await ws.recv() == message)
        await ws.close()
    return {"answer": answer_of(ws), "echoes": echoes, "end": [ws.close_code, ws.close_reason]}


async def early(target):
    """What the app server sends with its 101 arrives."""
    async with asyncio.timeout(PATIENCE):
        ws = await websocket(target, "/early?name=early")
        first = await ws.recv()
        await ws.close(1000, "")
    return {"first": first, "end": [ws.close_code, ws.close_reason]}


async def goodbye(target):
    """A Close from the app server, right behind its 101 and a message."""
    return await until_closed(await websocket(target, "/goodbye?name=goodbye"))


async def abort(target):
    """The app server's connection ends without a Close."""
    return await until_closed(await websocket(target, "/abort?name=abort"))


async def until_closed(ws):
    received = []
    async with asyncio.timeout(PATIENCE):
        try:
            while True:
                received.append(str(await ws.recv()))
        except websockets.ConnectionClosed as closed:
            clean = isinstance(closed, websockets.ConnectionClosedOK)
        await ws.wait_closed()
    return {"received": received, "clean": clean, "end": [ws.close_code, ws.close_reason]}


async def vanish(target):
    """The client's connection ends without a Close."""
    async with asyncio.timeout(PATIENCE):
        ws = await websocket(target, "/echo?name=vanish")
        await ws.send("last")
        last = await ws.recv()
        ws.transport.abort()
    return {"last": last}


async def without_app(target, app):
    """Nobody listens on 8282."""
    h = f"Host: {target.name}\r\n"
    requests_to_nobody = {
        "get": f"GET /length?name=down HTTP/1.1\r\n{h}\r\n",
        "post": f"POST /length?name=down HTTP/1.1\r\n{h}Content-Length: 3\r\n\r\nabc",
        "upgrade": f"GET /echo?name=down-ws HTTP/1.1\r\n{h}Upgrade: websocket\r\n"
        f"Connection: Upgrade\r\n{KEY}\r\n",
    }
    return {
        name: await attempt(single(target, request), app)
        for name, request in requests_to_nobody.items()
    }


# TLS 1.2, of certbot's list. Its DHE ciphers are left out: rustls has none, nor has any browser.
CIPHERS = [
    f"ECDHE-{key}-{cipher}"
    for key in ("ECDSA", "RSA")
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
] + ["ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256"]


def ciphers(target):
    """What becomes of a client that knows one cipher of TLS 1.2 only."""
    agreed = {}
    for name in CIPHERS:
        context = ssl.create_default_context(cafile=target.ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(name)
        try:
            with sockets.create_connection((target.name, target.port), PATIENCE) as plain:
                with context.wrap_socket(plain, server_hostname=target.name) as stream:
                    agreed[name] = stream.cipher()[0]
        except ssl.SSLError as error:
            agreed[name] = error.reason
    return agreed


def tls(target, versions):
    """What TLS agrees on, for each version: cipher, protocol, and whether it resumes."""
    transcript = {}
    for version in versions:
        for offer in ([], ["http/1.1"], ["h2", "http/1.1"]):
            context = ssl.create_default_context(cafile=target.ca)
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(offer)
            session, agreed = None, []
            for _ in range(2):
                with sockets.create_connection((target.name, target.port), PATIENCE) as plain:
                    with context.wrap_socket(
                        plain, server_hostname=target.name, session=session
                    ) as stream:
                        stream.sendall(b"GET /tls HTTP/1.0\r\n\r\n")
                        while stream.recv(1 << 16):
                            pass
                        session = stream.session
                        names = [san[1] for san in stream.getpeercert()["subjectAltName"]]
                        agreed.append(
                            [
                                stream.cipher()[0],
                                stream.selected_alpn_protocol(),
                                f"resumed {stream.session_reused}",
                                names,
                            ]
                        )
            transcript[f"{version.name} offering {offer}"] = agreed
    return transcript
