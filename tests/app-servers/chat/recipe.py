"""Chats: faye and Primus in Node, Django Channels on daphne in Python."""

from kit import free_port, recipe

FAYE_SAYS = """
any: subscribed by websocket
any: received {"text":"hello"}
any: received 50000 characters
no websocket: subscribed by long-polling
no websocket: received {"text":"hello"}
no websocket: received 50000 characters
"""
PRIMUS_SAYS = """
open
data: {"said":"hello"}
data: 50000 characters
end
"""
CHANNELS_SAYS = """
anna: {"joined": "anna"}
anna: {"joined": "berta"}
berta: {"joined": "berta"}
anna: {"from": "anna", "text": "hello"}
berta: {"from": "anna", "text": "hello"}
anna: {"from": "berta", "text": "x" * 50000}
berta: {"from": "berta", "text": "x" * 50000}
anna: {"left": "berta"}
anna: closed 4000 
page: chat
refused: 403
"""


@recipe("faye")
def faye(kit):
    kit.npm("faye@1.4.3", servers=["faye"], clients=["faye"])
    port = free_port()
    kit.start("faye", "node", kit.here / "faye_server.cjs", port, port=port)
    kit.gate(p8000=port)
    kit.dialogue(port, "faye", "node", kit.here / "faye_client.cjs", expect=FAYE_SAYS)


@recipe("primus")
def primus(kit):
    kit.npm("primus@8.0.9", "ws@8.23.0", servers=["primus", "ws"], clients=["primus"])
    port = free_port()
    kit.start("primus", "node", kit.here / "primus_server.cjs", port, port=port)
    kit.gate(p8001=port)
    kit.dialogue(port, "primus", "node", kit.here / "primus_client.cjs", expect=PRIMUS_SAYS)


@recipe("channels")
def channels(kit):
    pins = ["channels==4.3.2", "daphne==4.2.3", "Django==5.2.19", "websocket-client==1.9.0"]
    python = kit.pip(*pins, servers=["channels", "daphne", "Django"], clients=["websocket-client"])
    port = free_port()
    daphne = [python, "-m", "daphne", "-b", "127.0.0.1", "-p", port, "channels_chat:application"]
    kit.start("daphne", *daphne, port=port, env={**kit.environment, "PYTHONPATH": str(kit.here)})
    kit.gate(p8002=port)
    kit.dialogue(port, "two users", python, kit.here / "channels_client.py", expect=CHANNELS_SAYS)
