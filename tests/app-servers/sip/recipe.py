"""SIP over WebSocket (RFC 7118): Kamailio with JsSIP."""

from kit import free_port, recipe

SAYS = """
anna: connected, subprotocol sip
anna: registered
berta: connected, subprotocol sip
berta: registered
OPTIONS: 200 from Kamailio
berta: message from anna: hello
anna: message delivered: 200
berta: message from anna: 8000 characters
anna: message delivered: 200
anna: message to nobody: 404
unregistered
"""


@recipe("kamailio")
def kamailio(kit):
    system = kit.debian({"kamailio": "5.6.3-2", "kamailio-websocket-modules": "5.6.3-2"})
    kit.npm("jssip@3.13.8", "ws@8.23.0", clients=["jssip"])
    port = free_port()
    conf = kit.work / "kamailio.cfg"
    conf.write_text((kit.here / "kamailio.cfg").read_text().replace("PORT", str(port)))
    kit.start("kamailio", *system, "kamailio", "-DD", "-E", "-f", conf, "-Y", kit.work, port=port)
    kit.gate(p5060=port)
    kit.dialogue(port, "JsSIP", "node", kit.here / "client.cjs", expect=SAYS)
    kit.answer(port, "/", "sip", (101, "sip"))
    kit.answer(port, "/", "sip, other", (101, "sip"))
    kit.answer(port, "/", "SIP", (101, "sip"), odd=True)
    kit.answer(port, "/", None, (400, "sip"))
