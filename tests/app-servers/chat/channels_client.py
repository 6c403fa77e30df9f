"""Two users of the chat: channels_client.py URL"""

import os
import ssl
import sys
import urllib.request

import websocket

BASE = sys.argv[1]
PAGE = BASE.replace("ws", "http", 1)
TRUST = {"ca_certs": os.environ["SSL_CERT_FILE"]}


def user(name, origin=PAGE):
    return websocket.create_connection(f"{BASE}/chat/{name}", sslopt=TRUST, timeout=60, origin=origin)


def heard(name, wire):
    print(f"{name}: {wire.recv()}".replace("x" * 50_000 + '"', 'x" * 50000'))


anna = user("anna")
heard("anna", anna)
berta = user("berta")
heard("anna", anna)
heard("berta", berta)
anna.send('"hello"')
heard("anna", anna)
heard("berta", berta)
berta.send('"' + "x" * 50_000 + '"')
heard("anna", anna)
heard("berta", berta)
berta.close()
heard("anna", anna)
anna.send('"end"')
opcode, data = anna.recv_data()
assert opcode == websocket.ABNF.OPCODE_CLOSE, opcode
print(f"anna: closed {int.from_bytes(data[:2], 'big')} {data[2:].decode()}")
context = ssl.create_default_context(cafile=TRUST["ca_certs"]) if PAGE.startswith("https") else None
print(f"page: {urllib.request.urlopen(PAGE, timeout=60, context=context).read().decode()}")
try:
    user("stranger", origin="https://other.example")
except websocket.WebSocketBadStatusException as error:
    print(f"refused: {error.status_code}")
