"""A chat of Django Channels with a page beside it."""

import django
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings

settings.configure(
    SECRET_KEY="for a test",
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    ROOT_URLCONF="channels_urls",
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.urls import path  # noqa: E402


class Chat(AsyncJsonWebsocketConsumer):
    groups = ["room"]

    async def connect(self):
        self.name = self.scope["url_route"]["kwargs"]["name"]
        await self.accept()
        await self.tell({"joined": self.name})

    async def receive_json(self, content):
        if content == "end":
            await self.close(code=4000, reason="bye")
        else:
            await self.tell({"from": self.name, "text": content})

    async def disconnect(self, code):
        await self.tell({"left": self.name})

    async def tell(self, message):
        await self.channel_layer.group_send("room", {"type": "said", "message": message})

    async def said(self, event):
        await self.send_json(event["message"])


sockets = URLRouter([path("chat/<name>", Chat.as_asgi())])
application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": AllowedHostsOriginValidator(sockets)})
