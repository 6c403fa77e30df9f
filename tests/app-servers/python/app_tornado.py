"""The echo for tornado: app_tornado.py PORT"""

import asyncio
import sys

from tornado import web, websocket


class Echo(websocket.WebSocketHandler):
    def select_subprotocol(self, subprotocols):
        return "chat" if "chat" in subprotocols else None

    def on_message(self, message):
        if isinstance(message, bytes):
            self.write_message(message, binary=True)
        elif message.startswith("close "):
            self.close(int(message[6:]))
        elif message == "headers":
            self.write_message(f"path {self.request.uri}, cookie {self.request.headers['Cookie']}")
        else:
            self.write_message(message)


class Refuse(websocket.WebSocketHandler):
    def prepare(self):
        raise web.HTTPError(403)


class Page(web.RequestHandler):
    def get(self):
        self.write("a page")


async def main():
    app = web.Application([("/echo", Echo), ("/refuse", Refuse), ("/page", Page)])
    app.listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
