"""Works with a kernel as a notebook does: client.py URL"""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
import uuid

import websocket

BASE = sys.argv[1]
TRUST = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
OPTIONS = {"ca_certs": os.environ["SSL_CERT_FILE"]}
PROTOCOL = "v1.kernel.websocket.jupyter.org"


def rest(method, path, body=None, token="sesame"):
    request = urllib.request.Request(BASE.replace("ws", "http", 1) + path, method=method)
    request.add_header("Authorization", f"token {token}")
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(request, data, timeout=60, context=TRUST if BASE.startswith("wss") else None) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def opened(path, **more):
    return websocket.create_connection(
        BASE + path, header=["Authorization: token sesame"], sslopt=OPTIONS, timeout=60,
        origin=BASE.replace("ws", "http", 1), **more,
    )  # fmt: skip


def pack(channel, kind, content):
    """A message of the kernel protocol's first binary form: offsets, channel, then the parts as JSON."""
    header = {"msg_id": uuid.uuid4().hex, "session": SESSION, "username": "", "msg_type": kind, "version": "5.3"}
    parts = [channel.encode(), *(json.dumps(part).encode() for part in (header, {}, {}, content))]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    numbers = [len(offsets), *offsets]
    return header["msg_id"], b"".join(number.to_bytes(8, "little") for number in numbers) + b"".join(parts)


def unpack(message):
    count = int.from_bytes(message[:8], "little")
    offsets = [int.from_bytes(message[8 * at : 8 * at + 8], "little") for at in range(1, count + 1)]
    parts = [message[start:end] for start, end in zip(offsets, offsets[1:])]
    return parts[0].decode(), *(json.loads(part) for part in parts[1:5])


def execute(code, on=lambda kind, content: None):
    """What the kernel says to a piece of code until it is idle and has replied."""
    asked, message = pack("shell", "execute_request", {"code": code, "silent": False, "store_history": False})
    wire.send_binary(message)
    public, reply = [], None
    while reply is None or "idle" not in [content.get("execution_state") for _, content in public]:
        channel, header, parent, _metadata, content = unpack(wire.recv())
        if parent.get("msg_id") != asked:
            continue
        on(header["msg_type"], content)
        if channel == "shell":
            reply = header["msg_type"]
        elif channel == "iopub":
            public.append((header["msg_type"], content))
    return public, reply


SESSION = uuid.uuid4().hex
print(f"api: version {rest('GET', '/api')['version']}")
text = "x = 1\n" * 33_333 + "#\n"
rest("PUT", "/api/contents/note.txt", {"type": "file", "format": "text", "content": text})
assert rest("GET", "/api/contents/note.txt")["content"] == text
print(f"contents: notebook of {len(text)} characters written and read")
kernel = rest("POST", "/api/kernels", {"name": "python3"})["id"]
print("kernel: started")
wire = opened(f"/api/kernels/{kernel}/channels?session_id={SESSION}", subprotocols=[PROTOCOL])
print(f"socket: subprotocol {wire.subprotocol}")
said, reply = execute("print('from the kernel')\n6 * 7")
names = [f"status {content['execution_state']}" if kind == "status" else kind for kind, content in said]
print(f"execute: {', '.join([*names, reply])}")
kinds = dict(said)
print(f"stream: {kinds['stream']['text'].strip()}")
print(f"result: {kinds['execute_result']['data']['text/plain']}")
said, _ = execute("1 / 0")
print(f"error: {dict(said)['error']['ename']}")


def interrupt(kind, content):
    if kind == "stream":
        rest("POST", f"/api/kernels/{kernel}/interrupt")


said, _ = execute("import time\nprint('sleeping', flush=True)\ntime.sleep(60)", interrupt)
print(f"interrupt: {dict(said)['error']['ename']}")
wire.close()
print("socket: closed by the client")
rest("DELETE", f"/api/kernels/{kernel}")
terminal = rest("POST", "/api/terminals")["name"]
wire = opened(f"/terminals/websocket/{terminal}")
wire.send(json.dumps(["stdin", "echo wssgate-$((1 + 1))-terminal\r"]))
seen = ""
while "wssgate-2-terminal" not in seen:
    kind, *rest_of = json.loads(wire.recv())
    seen += rest_of[0] if kind == "stdout" else ""
print("terminal: wssgate-terminal")
wire.close()
rest("DELETE", f"/api/terminals/{terminal}")
try:
    rest("GET", "/api/kernels", token="wrong")
except urllib.error.HTTPError as error:
    print(f"refused without a token: {error.code}")
