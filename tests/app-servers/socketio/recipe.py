"""Socket.IO 4: polling, the upgrade to a WebSocket, and each of the two alone."""

from kit import free_port, recipe

SAYS = """
websocket only: connected by websocket
websocket only: acknowledged {"text":"hello","from":"server"}
websocket only: binary 100000 bytes, intact
websocket only: room says to all
websocket only: disconnected: io server disconnect
polling only: connected by polling
polling only: acknowledged {"text":"hello","from":"server"}
polling only: binary 100000 bytes, intact
polling only: room says to all
polling only: disconnected: io server disconnect
polling, then websocket: connected by polling
polling, then websocket: upgraded to websocket
polling, then websocket: acknowledged {"text":"hello","from":"server"}
polling, then websocket: binary 100000 bytes, intact
polling, then websocket: room says to all
polling, then websocket: disconnected: io server disconnect
"""


@recipe("socket.io")
def socketio(kit):
    kit.npm("socket.io@4.8.4", "socket.io-client@4.8.4", servers=["socket.io"], clients=["socket.io-client"])
    port = free_port()
    kit.start("socketio", "node", kit.here / "server.cjs", port, port=port)
    kit.gate(p3001=port)
    kit.dialogue(port, "socket.io-client", "node", kit.here / "client.cjs", expect=SAYS)
