"""The app server behind the proxies: plain HTTP and `ws://` on 127.0.0.1:8282.

It keeps the head of every request as it was received, the body, and every WebSocket frame. What a
path does is in ANSWERS (HTTP) and SCENES (after the switch).
"""

import asyncio
import hashlib

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

ADDRESS = ("127.0.0.1", 8282)  # not on ::1, which `localhost` also means
PATIENCE = 10  # seconds that anything may take

ANSWERS = {
    "/length": (
        b"HTTP/1.1 200 OK\r\nServer: app/1\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"x-loWer: kept\r\nSet-Cookie: a=1\r\nContent-Type: text/plain\r\nset-cookie: b=2\r\n"
        b"Cache-Control: no-store\r\nContent-Length: 6\r\nX-Last: 1\r\n\r\n",
        b"hello\n",
    ),
    "/chunked": (
        b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n",
        b"c;x=y\r\nhello, world\r\n0\r\n\r\n",
    ),
    "/chunks": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n",
        b"00005\r\nhello\r\n7;a=\"b;c\"\r\n, world\r\n0\r\nX-Trailer: 1\r\n\r\n",
    ),
    "/until-close": (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n",
        b"all of it\n",
    ),
    "/empty": (b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", b""),
    "/moved": (
        b"HTTP/1.1 302 Found\r\nLocation: http://websocket/next\r\nContent-Length: 0\r\n\r\n",
        b"",
    ),
    "/moved-away": (
        b"HTTP/1.1 301 Moved\r\nLocation: https://other.test/x\r\nContent-Length: 0\r\n\r\n",
        b"",
    ),
    "/cached": (
        b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n"
        b"Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n",
        b"",
    ),
    "/denied": (
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\n",
        b"not for you\n",
    ),
    "/broken": (b"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\nX-Accel-Expires: 5\r\n\r\n", b"oops\n"),
}
MISSING = (
    b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\n",
    b"not here\n",
)


def digest(data):
    """Length and hash of bytes, or short ones as they are."""
    if len(data) <= 64:
        return data.decode("utf-8", "backslashreplace")
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:16]}"


class App:
    """The server and what it received since it was last asked."""

    def __init__(self):
        self.seen = []
        self.open = 0
        self.idle = asyncio.Condition()

    async def start(self):
        self.server = await asyncio.start_server(self.connection, *ADDRESS, limit=1 << 22)

    async def stop(self):
        self.server.close()

    async def take(self):
        """All requests since the last call; waits for sockets that are still open."""
        try:
            async with asyncio.timeout(PATIENCE), self.idle:
                await self.idle.wait_for(lambda: self.open == 0)
        except TimeoutError:
            self.seen.append({"still open": self.open})
        seen, self.seen = self.seen, []
        return seen

    async def connection(self, reader, writer):
        self.open += 1
        try:
            while await self.request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self.seen.append({"broken": type(error).__name__})
        finally:
            writer.close()
            async with self.idle:
                self.open -= 1
                self.idle.notify_all()

    async def request(self, reader, writer):
        """One request; false when it was the last of its connection."""
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return False
        line, *fields = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        values = {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
        seen = {"line": line, "fields": fields}
        self.seen.append(seen)
        method, target, _ = line.split(" ", 2)
        path = target.split("?")[0]
        if "upgrade" in values and path not in ANSWERS:
            seen.update(await WebSocket(path, raw, reader, writer).run())
            return False
        if body := await read_body(reader, values):
            seen["body"] = digest(body)
        head, body = ANSWERS.get(path, MISSING)
        writer.write(head if method == "HEAD" else head + body)
        await writer.drain()
        # A connection whose upgrade was denied may be kept (nginx 1.31) or not (1.22).
        is_last = values.get("connection", "").lower() in ("close", "upgrade")
        return not is_last and path != "/until-close"


async def read_body(reader, values):
    if "chunked" in values.get("transfer-encoding", ""):
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        while (await reader.readline()).strip():
            pass
        return body
    return await reader.readexactly(int(values.get("content-length", 0)))


class WebSocket:
    """One WebSocket: what SCENES say at once, then an echo of every frame until the end."""

    SCENES = {
        # Bytes that leave in one write with the 101.
        "/early": lambda self: self.protocol.send_text(b"at once"),
        "/goodbye": lambda self: self.goodbye(),
        "/abort": lambda self: self.abort(),
    }

    def __init__(self, path, raw, reader, writer):
        self.path, self.raw, self.reader, self.writer = path, raw, reader, writer
        self.frames = []
        self.over = False
        self.protocol = ServerProtocol(
            select_subprotocol=lambda _, offered: "chat.v2" if "chat.v2" in offered else None,
            extensions=[ServerPerMessageDeflateFactory()],
            max_size=None,
        )

    def goodbye(self):
        self.protocol.send_text("last words ✓".encode())
        self.protocol.send_close(1012, "service restart")

    def abort(self):
        self.protocol.send_binary(b"cut after this")
        self.over = True

    async def run(self):
        data = self.raw
        end = "eof"
        try:
            while data and not self.over:
                self.protocol.receive_data(data)
                for event in self.protocol.events_received():
                    self.on_event(event)
                for piece in self.protocol.data_to_send():
                    if piece:
                        self.writer.write(piece)
                await self.writer.drain()
                if self.protocol.close_expected() and self.protocol.close_rcvd:
                    break
                data = b"" if self.over else await self.reader.read(1 << 16)
        except ConnectionError:
            end = "reset"
        closed = self.protocol.close_rcvd
        if closed:
            end = f"close {closed.code} {closed.reason}"
        return {"frames": self.frames, "end": end}

    def on_event(self, event):
        if isinstance(event, Request):
            self.protocol.send_response(self.protocol.accept(event))
            self.SCENES.get(self.path, lambda _: None)(self)
            return
        frame: Frame = event
        more = "" if frame.fin else "+"
        self.frames.append(f"{frame.opcode.name}{more} {digest(bytes(frame.data))}")
        send = {
            Opcode.TEXT: lambda: self.protocol.send_text(frame.data, frame.fin),
            Opcode.BINARY: lambda: self.protocol.send_binary(frame.data, frame.fin),
            Opcode.CONT: lambda: self.protocol.send_continuation(frame.data, frame.fin),
        }.get(frame.opcode)
        if frame.opcode is Opcode.TEXT and bytes(frame.data) == b"ping me":
            self.protocol.send_ping(b"are you there?")
        if send:
            send()
