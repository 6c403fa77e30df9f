"""WeeChat's relay: its binary protocol over WebSocket."""

from kit import free_port, recipe

SAYS = """
handshake: password_hash_algo plain, compression off
version: 3.8
buffers: weechat relay.list
test: 15 objects
input: line arrives
quit: 1006
"""


@recipe("weechat")
def weechat(kit):
    system = kit.debian({"weechat-headless": "3.8-1", "weechat-plugins": "3.8-1"})
    python = kit.pip("websocket-client==1.9.0", clients=["websocket-client"])
    port, home = free_port(), kit.work / "weechat"
    commands = [
        "/set relay.network.bind_address 127.0.0.1", "/set relay.network.password sesame",
        "/set relay.network.ipv6 off",
        f"/relay add weechat {port}",
    ]  # fmt: skip
    start = [*system, "weechat-headless", "--dir", home, *(part for command in commands for part in ("-r", command))]
    kit.start("weechat", *start, port=port)
    kit.gate(p9005=port)
    kit.dialogue(port, "relay", python, kit.here / "relay.py", expect=SAYS)
