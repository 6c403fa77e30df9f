"""VNC: TigerVNC's server behind websockify, with a scripted RFB dialogue."""

from kit import free_port, recipe

SAYS = """
websocket: subprotocol None
server: RFB 003.008
security: None
result: 0
screen: 320x240, 32 bits, desktop of recipe
update: raw rectangles of 307200 bytes
key and pointer: sent
update: a second one, 307200 bytes
text frame: closed 1003 Unsupported: Text frames are not supported
"""


@recipe("websockify")
def websockify(kit):
    system = kit.debian({"tigervnc-standalone-server": "1.12.0+dfsg-8"})
    pins = ["websockify==0.13.0", "websocket-client==1.9.0"]
    python = kit.pip(*pins, servers=["websockify"], clients=["websocket-client"])
    port, rfb, display = free_port(), free_port(), free_port()
    # The display's number names its socket below /tmp, so it is taken from the kernel as well.
    vnc = ["Xtigervnc", f":{display}", "-rfbport", rfb, "-interface", "127.0.0.1", "-SecurityTypes", "None",
           "-geometry", "320x240", "-depth", "24", "-desktop", "recipe", "-nolisten", "tcp", "-nolisten", "local",
           "-AcceptSetDesktopSize=0"]  # fmt: skip
    kit.start("vnc", *system, *vnc, port=rfb)
    kit.start("websockify", python, "-m", "websockify", f"127.0.0.1:{port}", f"127.0.0.1:{rfb}", port=port)
    kit.gate(p6080=port)
    kit.dialogue(port, "RFB", python, kit.here / "rfb.py", expect=SAYS)
    kit.answer(port, "/websockify", "binary", (101, "binary"))
    kit.answer(port, "/websockify", None, (101, None))
