"""Registers an account: register.py PATH USER URL"""

import os
import re
import sys

import websocket

path, user, url = sys.argv[1:]
FRAMING = "urn:ietf:params:xml:ns:xmpp-framing"
wire = websocket.create_connection(
    url + path, subprotocols=["xmpp"], sslopt={"ca_certs": os.environ["SSL_CERT_FILE"]}, timeout=60
)
print(f"subprotocol {wire.subprotocol}")
wire.send(f"<open xmlns='{FRAMING}' to='localhost' version='1.0'/>")


def attribute(text, name):
    return re.search(rf"""\b{name}=['"]([^'"]*)""", text).group(1)


said = wire.recv()
assert said.startswith("<open"), said
print(f"open from {attribute(said, 'from')}, version {attribute(said, 'version')}")
said = wire.recv()
names = [name for word, name in [("iq-register", "registration"), (">SCRAM-SHA-1<", "SCRAM-SHA-1")] if word in said]
print(f"features: {', '.join(names)}")
wire.send(
    "<iq xmlns='jabber:client' type='set' id='r1'><query xmlns='jabber:iq:register'>"
    f"<username>{user}</username><password>secret-{user}</password></query></iq>"
)
said = wire.recv()
assert attribute(said, "type") == "result", said
print("registered")
wire.send(f"<close xmlns='{FRAMING}'/>")
said = wire.recv()
assert said.startswith("<close"), said
print("close")
wire.close()
