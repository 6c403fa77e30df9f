"""Speaks WeeChat's relay protocol: relay.py URL"""

import os
import struct
import sys

import websocket

trust = {"ca_certs": os.environ["SSL_CERT_FILE"]}
wire = websocket.create_connection(sys.argv[1] + "/weechat", sslopt=trust, timeout=60)


class Message:
    """One message: length, compression, identifier, then objects."""

    def __init__(self, data):
        length, compressed = struct.unpack(">IB", data[:5])
        assert (length, compressed) == (len(data), 0), data[:9]
        self.data, self.at = data, 5
        self.id = self.text()

    def number(self, size=4):
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "big", signed=True)

    def text(self):
        length = self.number()
        if length < 0:
            return None
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def kind(self):
        self.at += 3
        return self.data[self.at - 3 : self.at].decode()

    def object(self, kind=None):
        kind = kind or self.kind()
        match kind:
            case "str" | "buf":
                return self.text()
            case "int":
                return self.number()
            case "chr":
                return self.number(1)
            case "lon" | "ptr" | "tim":
                length = self.number(1)
                self.at += length
                return self.data[self.at - length : self.at].decode()
            case "htb":
                keys, values = self.kind(), self.kind()
                return {self.object(keys): self.object(values) for _ in range(self.number())}
            case "arr":
                of = self.kind()
                return [self.object(of) for _ in range(self.number())]
            case "inf":
                return self.text(), self.text()
            case "hda":
                path, names = self.text(), [word.split(":") for word in self.text().split(",")]
                depth = len(path.split("/"))
                rows = []
                for _ in range(self.number()):
                    for _ in range(depth):
                        self.object("ptr")
                    rows.append({name: self.object(kind) for name, kind in names})
                return rows
        raise ValueError(kind)

    def objects(self):
        found = []
        while self.at < len(self.data):
            found.append(self.object())
        return found


def ask(command, id):
    wire.send(f"({id}) {command}\n")
    return told(id)


def told(id):
    while True:
        message = Message(wire.recv())
        if message.id == id:
            return message


answer = ask("handshake password_hash_algo=plain,compression=off", "hello").object()
print(f"handshake: password_hash_algo {answer['password_hash_algo']}, compression {answer['compression']}")
wire.send("init password=sesame\n")
print(f"version: {ask('info version', 'version').object()[1]}")
buffers = ask("hdata buffer:gui_buffers(*) name", "buffers").object()
print(f"buffers: {' '.join(row['name'] for row in buffers)}")
print(f"test: {len(ask('test', 'test').objects())} objects")
wire.send("(sync) sync core.weechat buffer\n")
wire.send("(say) input core.weechat /print from the recipe\n")
while not any("from the recipe" in row["message"] for row in told("_buffer_line_added").object()):
    pass
print("input: line arrives")
wire.send("quit\n")
try:
    opcode, data = wire.recv_data()
    print(f"quit: {int.from_bytes(data[:2], 'big')}")
except (websocket.WebSocketConnectionClosedException, ConnectionError):
    # It ends the connection without a Close.
    print("quit: 1006")
