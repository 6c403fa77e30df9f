"""WebRTC signalling: Janus's API over WebSocket."""

from kit import free_port, recipe

SAYS = """
subprotocol janus-protocol
info: Janus WebRTC Server 1.1.2
session: created
plugin: attached
keepalive: ack
rooms: 1234 Demo Room
created: room 7
rooms: 7 recipe, 1234 Demo Room
large: 20000 characters came back
unknown request: 453
plugin: detached
session: destroyed
closed: 1000
"""

CONF = 'general: {{ configs_folder = "{home}" interface = "127.0.0.1" }}\nnat: {{ }}\nmedia: {{ }}\n'
# Other transports would take ports of their own.
OTHERS = ["http", "mqtt", "nanomsg", "pfunix", "rabbitmq"]
TRANSPORTS = f'transports: {{ disable = "{",".join(f"libjanus_{name}.so" for name in OTHERS)}" }}\n'
WEBSOCKETS = 'general: {{ json = "indented" ws = true ws_port = {port} ws_interface = "lo" wss = false }}\n'
TEXTROOM = 'room-1234: { description = "Demo Room" secret = "adminpwd" }\n'


@recipe("janus")
def janus(kit):
    system = kit.debian({"janus": "1.1.2-1"})
    python = kit.pip("websocket-client==1.9.0", clients=["websocket-client"])
    port, home = free_port(), kit.work / "janus"
    home.mkdir()
    (home / "janus.jcfg").write_text(CONF.format(home=home) + TRANSPORTS)
    (home / "janus.transport.websockets.jcfg").write_text(WEBSOCKETS.format(port=port))
    (home / "janus.plugin.textroom.jcfg").write_text(TEXTROOM)
    kit.start("janus", *system, "janus", "-F", home, port=port)
    kit.gate(p8188=port)
    kit.dialogue(port, "API", python, kit.here / "janus.py", expect=SAYS)
    kit.answer(port, "/", "janus-protocol", (101, "janus-protocol"))
    kit.answer(port, "/", "other", (502, None))
    kit.answer(port, "/", None, (502, None))
