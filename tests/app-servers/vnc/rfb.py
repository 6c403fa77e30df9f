"""Looks at a screen as noVNC does: rfb.py URL"""

import os
import struct
import sys

import websocket

url = sys.argv[1]


def opened():
    trust = {"ca_certs": os.environ["SSL_CERT_FILE"]}
    return websocket.create_connection(url + "/websockify", sslopt=trust, timeout=60)


wire, got = opened(), b""


def take(count):
    global got
    while len(got) < count:
        got += wire.recv()
    piece, got = got[:count], got[count:]
    return piece


def update(incremental):
    """Asks for the whole screen and returns the bytes of its raw rectangles."""
    wire.send_binary(struct.pack(">BBHHHH", 3, incremental, 0, 0, width, height))
    while (kind := take(1)[0]) != 0:
        assert kind == 2, kind  # a bell
    (count,) = struct.unpack(">xH", take(3))
    sizes = []
    for _ in range(count):
        _x, _y, wide, high, encoding = struct.unpack(">HHHHi", take(12))
        assert encoding == 0, encoding
        sizes.append((wide, high, len(take(wide * high * 4))))
    return sizes


print(f"websocket: subprotocol {wire.subprotocol}")
version = take(12)
print(f"server: {version.decode().strip()}")
wire.send_binary(version)
kinds = take(take(1)[0])
assert kinds == b"\x01", kinds
print("security: None")
wire.send_binary(b"\x01")
print(f"result: {int.from_bytes(take(4), 'big')}")
wire.send_binary(b"\x01")
width, height, bits = struct.unpack(">HHB15x", take(20))
name = take(int.from_bytes(take(4), "big")).decode()
print(f"screen: {width}x{height}, {bits} bits, desktop of {name.split()[-1] if name else name}")
wire.send_binary(struct.pack(">BxHi", 2, 1, 0))  # raw only
sizes = update(0)
assert all(size == wide * high * 4 for wide, high, size in sizes)
print(f"update: raw rectangles of {sum(size for _, _, size in sizes)} bytes")
wire.send_binary(struct.pack(">BBxxI", 4, 1, ord("a")) + struct.pack(">BBxxI", 4, 0, ord("a")))
wire.send_binary(struct.pack(">BBHH", 5, 0, 10, 10))
print("key and pointer: sent")
total = sum(size for _, _, size in update(0))
print(f"update: a second one, {total} bytes")
wire.close()
wire = opened()
wire.recv()
wire.send("text")
opcode, data = wire.recv_data()
assert opcode == websocket.ABNF.OPCODE_CLOSE, opcode
print(f"text frame: closed {int.from_bytes(data[:2], 'big')} {data[2:].decode()}")
