"""XMPP over WebSocket (RFC 7395): Prosody and ejabberd, with a scripted registration and xmpp.js."""

from kit import free_port, recipe

RAW_SAYS = """
subprotocol xmpp
open from localhost, version 1.0
features: registration, SCRAM-SHA-1
registered
close
"""
XMPPJS_SAYS = """
online: anna@localhost/app
ping: result
message from self: hello
message from self: 50000 characters
offline
"""

PROSODY = """
daemonize = false
run_as_root = true
pidfile = "{home}/pid"
data_path = "{home}"
log = "*console"
modules_enabled = {{ "roster", "saslauth", "disco", "ping", "register", "register_ibr", "websocket" }}
modules_disabled = {{ "s2s" }}
c2s_ports = {{ }}
allow_registration = true
c2s_require_encryption = false
consider_websocket_secure = true
authentication = "internal_hashed"
http_ports = {{ {port} }}
http_interfaces = {{ "127.0.0.1" }}
https_ports = {{ }}
VirtualHost "localhost"
"""
EJABBERD = """
hosts: [localhost]
loglevel: info
acme: {{auto: false}}
registration_timeout: infinity
auth_method: internal
auth_password_format: scram
listen:
  - port: {port}
    ip: "127.0.0.1"
    module: ejabberd_http
    request_handlers: {{/ws: ejabberd_http_ws}}
modules:
  mod_disco: {{}}
  mod_ping: {{}}
  mod_register: {{}}
  mod_roster: {{}}
access_rules:
  register: [allow]
  local: [allow]
  c2s: [allow]
"""


def clients(kit, port, path):
    python = kit.pip("websocket-client==1.9.0", clients=["websocket-client"])
    kit.npm("@xmpp/client@0.14.0", "ws@8.23.0", clients=["@xmpp/client"])
    kit.dialogue(port, "registration", python, kit.here / "register.py", path, "anna-{way}", expect=RAW_SAYS)
    kit.dialogue(port, "xmpp.js", "node", kit.here / "xmppjs.cjs", path, "anna-{way}", expect=XMPPJS_SAYS)


@recipe("prosody")
def prosody(kit):
    system = kit.debian({"prosody": "0.12.3-1+deb12u1"})
    port, home = free_port(), kit.work / "prosody"
    home.mkdir()
    conf = kit.work / "prosody.cfg.lua"
    conf.write_text(PROSODY.format(port=port, home=home))
    kit.start("prosody", *system, "prosody", "--config", conf, port=port)
    kit.gate(p5280=port)
    clients(kit, port, "/xmpp-websocket")
    kit.answer(port, "/xmpp-websocket", "xmpp", (101, "xmpp"))
    kit.answer(port, "/xmpp-websocket", "chat, xmpp", (101, "xmpp"))
    kit.answer(port, "/xmpp-websocket", "XMPP", (101, "xmpp"), odd=True)
    kit.answer(port, "/xmpp-websocket", "other", (501, None))


@recipe("ejabberd")
def ejabberd(kit):
    system = kit.debian({"ejabberd": "23.01-1"})
    port, home = free_port(), kit.work / "ejabberd"
    home.mkdir()
    conf = home / "ejabberd.yml"
    conf.write_text(EJABBERD.format(port=port))
    places = {"HOME": home, "SPOOL_DIR": home, "EJABBERD_CONFIG_PATH": conf, "EJABBERD_LOG_PATH": home / "log"}
    environment = {**kit.environment, **{name: str(place) for name, place in places.items()}}
    environment["ERL_LIBS"] = "/usr/lib/x86_64-linux-gnu"
    # Without a node name nothing else of Erlang has to run.
    erl = ["erl", "-noinput", "-mnesia", "dir", f'"{home}/data"', "-s", "ejabberd"]
    kit.start("ejabberd", *system, *erl, port=port, env=environment, cwd=home)
    kit.gate(p5443=port)
    clients(kit, port, "/ws")
    kit.answer(port, "/ws", "xmpp", (101, "xmpp"))
    kit.answer(port, "/ws", "chat, xmpp", (101, "chat, xmpp"), odd=True)
