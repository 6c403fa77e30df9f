"""SockJS: websocket, xhr-streaming, eventsource-like streaming and polling."""

from kit import free_port, recipe

SAYS = """
websocket: open
websocket: echo hello
websocket: echo 50000 characters
websocket: closed 3000 bye
xhr-streaming: open
xhr-streaming: echo hello
xhr-streaming: echo 50000 characters
xhr-streaming: closed 3000 bye
eventsource: open
eventsource: echo hello
eventsource: echo 50000 characters
eventsource: closed 3000 bye
xhr-polling: open
xhr-polling: echo hello
xhr-polling: echo 50000 characters
xhr-polling: closed 3000 bye
"""


@recipe("sockjs")
def sockjs(kit):
    kit.npm("sockjs@0.3.24", "sockjs-client@1.6.1", servers=["sockjs"], clients=["sockjs-client"])
    port = free_port()
    kit.start("sockjs", "node", kit.here / "server.cjs", port, port=port)
    kit.gate(p9999=port)
    kit.dialogue(port, "sockjs-client", "node", kit.here / "client.cjs", expect=SAYS)
