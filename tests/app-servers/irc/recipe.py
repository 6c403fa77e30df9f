"""IRC over WebSocket: InspIRCd with irc-framework, as The Lounge and KiwiIRC use it."""

from kit import free_port, recipe

SAYS = """
anna: registered, network Test
berta: registered, network Test
anna: topic set to A topic
berta: sees the topic A topic
anna: hears berta: hello
anna: hears berta: 350 characters
anna: hears berta: größe
whois: berta's real host is 127.0.0.1
berta: quit: bye
"""


@recipe("inspircd")
def inspircd(kit):
    system = kit.debian({"inspircd": "3.15.0-1"})
    kit.npm("irc-framework@4.14.0", "ws@8.23.0", clients=["irc-framework"])
    port = free_port()
    conf = kit.work / "inspircd.conf"
    text = (kit.here / "inspircd.conf").read_text()
    conf.write_text(text.replace("PORT", str(port)).replace("WORK", str(kit.work)))
    start = [*system, "inspircd", "--config", conf, "--nofork", "--runasroot", "--nopid"]
    kit.start("inspircd", *start, port=port)
    kit.gate(p8067=port)
    kit.dialogue(port, "irc-framework", "node", kit.here / "client.cjs", expect=SAYS)
    page = ["Origin: http://chat.example.test", "X-Real-IP: 127.0.0.1"]
    # 3.15 knows no subprotocols: it answers none of them.
    kit.answer(port, "/", "text.ircv3.net", (101, None), headers=page)
    kit.answer(port, "/", None, (101, None), headers=page)
    kit.answer(port, "/", None, (400, None))
