"""Signals with Janus: janus.py URL"""

import json
import os
import sys
import uuid

import websocket

trust = {"ca_certs": os.environ["SSL_CERT_FILE"]}
wire = websocket.create_connection(sys.argv[1], subprotocols=["janus-protocol"], sslopt=trust, timeout=60)
print(f"subprotocol {wire.subprotocol}")


def ask(request, **more):
    transaction = uuid.uuid4().hex
    wire.send(json.dumps({"janus": request, "transaction": transaction, **more}))
    while (answer := json.loads(wire.recv())).get("transaction") != transaction:
        pass
    return answer


def textroom(**body):
    return ask("message", **handle, body=body)["plugindata"]["data"]


def rooms():
    found = sorted((room["room"], room["description"]) for room in textroom(request="list")["list"])
    return ", ".join(f"{number} {name}" for number, name in found)


info = ask("info")
print(f"info: {info['name']} {info['version_string']}")
session = {"session_id": ask("create")["data"]["id"]}
print("session: created")
handle = {**session, "handle_id": ask("attach", **session, plugin="janus.plugin.textroom")["data"]["id"]}
print("plugin: attached")
print(f"keepalive: {ask('keepalive', **session)['janus']}")
print(f"rooms: {rooms()}")
print(f"created: room {textroom(request='create', room=7, description='recipe', permanent=False, secret='s')['room']}")
print(f"rooms: {rooms()}")
long = "x" * 20_000
textroom(request="create", room=8, description=long, permanent=False, secret="s")
found = {room["room"]: room["description"] for room in textroom(request="list")["list"]}
print(f"large: {len(found[8])} characters came back" if found[8] == long else "large: broken")
for room in (7, 8):
    textroom(request="destroy", room=room, secret="s")
print(f"unknown request: {ask('nothing', **session)['error']['code']}")
ask("detach", **handle)
print("plugin: detached")
ask("destroy", **session)
print("session: destroyed")
wire.send_close(1000)
while (frame := wire.recv_data())[0] != websocket.ABNF.OPCODE_CLOSE:
    pass
print(f"closed: {int.from_bytes(frame[1][:2], 'big')}")
